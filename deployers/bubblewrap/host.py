"""What this host offers: programs, namespaces, an interpreter; and what to change if it does not."""

from __future__ import annotations

import compileall
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from deployers.bubblewrap.command import Python, system_arguments
from deployers.bubblewrap.launch import PRIVATE_MOUNTS, as_user
from deployers.errors import Rejected, Unavailable

SECONDS = 20

INSTALL = "apt-get install {0}, dnf install {0}, apk add {0} or pacman -S {0}"

FORBIDDING = {
    "/proc/sys/kernel/unprivileged_userns_clone": ("0", "1"),
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": ("1", "0"),
    "/proc/sys/user/max_user_namespaces": ("0", "15000"),
}
"""Settings of the kernel: the value that forbids user namespaces, and one that allows them."""


REFUSALS = "namespace|not permitted|ermission denied|uid map|RTM_NEWADDR|unshare|setresuid"
CONTAINER_ADVICE = (
    " (if this is a container, it must be allowed the system calls unshare, mount and pivot_root "
    "and an unmasked /proc, in Docker --security-opt seccomp=unconfined --security-opt "
    "systempaths=unconfined; as root it also needs CAP_SYS_ADMIN, CAP_SETUID, CAP_CHOWN and all user "
    "ids of its host, or else run it as an ordinary user)"
)

SYSTEM = ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/sbin", "/sys", "/usr")
NOT_WORKSPACES = ("/", "/home", "/media", "/mnt", "/opt", "/root", "/run", "/srv", "/var")
NOT_WORKSPACES += ("/tmp", "/var/tmp")  # noqa: S108  # named so as to be refused


def check_programs() -> None:
    """Raise Unavailable, naming the package, if a program is missing."""
    needed = {"bwrap": "bubblewrap", "setsid": "util-linux"}
    if os.geteuid() == 0:
        needed |= dict.fromkeys(("setpriv", "unshare", "mount"), "util-linux")
    for program, package in needed.items():
        if shutil.which(program) is None:
            raise Unavailable(
                f"{program} is not installed; install the package {package}: "
                f"{INSTALL.format(package)}."
            )


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command that should take milliseconds."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, cwd="/", check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{command[0]} could not be run: {error}") from error


def try_namespaces(uid: int | None) -> None:
    """Raise Rejected, naming what forbids it, if a sandbox cannot be made here."""
    namespaces = ["--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc"]
    namespaces += ["--unshare-uts", "--uid", "1000", "--gid", "1000"]
    stage = [] if uid is None else [*PRIVATE_MOUNTS, *as_user(uid)]
    mounts = [*system_arguments(), "--proc", "/proc", "--dev", "/dev"]
    tried = run([*stage, "bwrap", *namespaces, *mounts, "true"])
    if tried.returncode:
        raise Rejected(explain(tried.stderr))


def explain(said: str, root: Path = Path("/")) -> str:
    """Turn what bwrap said into a sentence about what to change; root is for tests."""
    for setting, (forbids, allows) in FORBIDDING.items():
        path = root / setting.lstrip("/")
        if path.exists() and path.read_text().strip() == forbids:
            name = setting.removeprefix("/proc/sys/").replace("/", ".")
            cause = (
                f"the kernel forbids user namespaces; allow them with: sysctl -w {name}={allows}"
            )
            break
    else:
        cause = CONTAINER_ADVICE if re.search(REFUSALS, said) else ""
    return f"bwrap cannot make a sandbox here: {said.strip()[-500:] or 'it was killed'}{cause}."


def bwrap_version() -> str:
    return run(["bwrap", "--version"]).stdout.strip().removeprefix("bubblewrap ")


def bwrap_features() -> frozenset[str]:
    """Return the options that this bwrap knows."""
    return frozenset(
        re.findall(r"^\s+(--[a-z0-9-]+)", run(["bwrap", "--help"]).stdout, re.MULTILINE)
    )


def find_python(executable: Path) -> Python:
    """Ask an interpreter for the trees it needs, those in /usr left out."""
    if executable == Path(sys.executable):
        prefixes = [sys.prefix, sys.base_prefix, sys.exec_prefix]
    else:
        question = "import sys; print(sys.prefix, sys.base_prefix, sys.exec_prefix, sep='\\n')"
        answer = run([str(executable), "-I", "-c", question])
        if answer.returncode:
            raise Rejected(f"The interpreter {executable} does not run: {answer.stderr[-300:]}")
        prefixes = answer.stdout.splitlines()
    trees: list[Path] = []
    for prefix in map(Path, prefixes):
        # A version may be called by a link's name: what the link leads to is needed as well.
        for tree in (prefix, prefix.resolve()):
            if not any(tree.is_relative_to(known) for known in [Path("/usr"), *trees]):
                trees.append(tree)
    return Python(executable, tuple(trees))


def refuse_system_directory(workspace: Path) -> None:
    """Raise Rejected if this directory must not change hands, as a workspace does."""
    path = workspace.resolve()
    if path in map(Path, NOT_WORKSPACES) or any(path.is_relative_to(each) for each in SYSTEM):
        raise Rejected(f"{workspace} belongs to the system and cannot be a workspace.")


def precompile(guest_dir: Path) -> None:
    """Compile the guest where we may: no sandbox can keep what it compiles, 20 ms a start."""
    compileall.compile_dir(guest_dir, quiet=2)


def is_reachable(path: Path, uid: int) -> bool:
    """Can this user get to the path, going by mode bits alone?"""
    for directory in path.parents:
        seen = directory.stat()
        if not seen.st_mode & (0o100 if seen.st_uid == uid else 0o001):
            return False
    return True


def give_to(directory: Path, uid: int) -> None:
    """Make uid the owner of a directory and all in it, without following links."""
    os.chown(directory, uid, uid)
    for _, names, files, fd in os.fwalk(directory):
        for name in (*names, *files):
            seen = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if (seen.st_uid, seen.st_gid) != (uid, uid):
                os.chown(name, uid, uid, dir_fd=fd, follow_symlinks=False)

"""Pure functions from what is wanted to the arguments of bwrap."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deployers.bubblewrap.plan import MIB, Plan
from deployers.specs import WORKSPACE, Network, SandboxSpec

USER = 1000
GUEST = "/opt/guest"
"""What is bound below it can be imported inside; the guest itself is GUEST/guest."""

HOME = "/tmp/home"  # noqa: S108  # the sandbox's own /tmp
"""Not the workspace: what programs keep there is none of the caller's files."""

SYSTEM_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")

ETC = (
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/etc/fonts",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/pki/ca-trust",
    "/etc/pki/tls/certs",
    "/etc/protocols",
    "/etc/services",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
)
"""The parts of the host's /etc that programs need and that tell nothing about the host."""

DNS = "10.0.2.3"
"""slirp4netns answers here and asks the resolvers of the host."""


@dataclass(frozen=True, slots=True)
class Bind:
    """A directory of the host at a place in the sandbox."""

    source: Path
    target: str
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class Python:
    """The interpreter that runs the guest, and the trees it needs."""

    executable: Path
    prefixes: tuple[Path, ...] = field(default=())


def environment(spec: SandboxSpec, python: Python, guest_fd: int) -> dict[str, str]:
    """Return all that the guest finds in its environment; nothing of the server's is in it."""
    programs = f"{python.executable.parent}:/usr/local/bin:/usr/bin:/bin"
    env = {
        "HOME": HOME,
        "LANG": "C.UTF-8",
        "PATH": programs,
        "SHELL": "/bin/sh",
        "USER": "sandbox",
        **spec.env,
        "GUEST_FD": str(guest_fd),
    }
    env["PYTHONPATH"] = ":".join(filter(None, [GUEST, env.get("PYTHONPATH")]))
    return env


def exports(env: Mapping[str, str]) -> str:
    """Return the environment as lines for sh."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in env.items())


def etc_files(hostname: str, network: Network) -> dict[str, str]:
    """Return the files in /etc that are written for the sandbox."""
    return {
        "/etc/passwd": f"root:x:0:0:root:/:/sbin/nologin\n"
        f"sandbox:x:{USER}:{USER}:sandbox:{HOME}:/bin/sh\n"
        "nobody:x:65534:65534:nobody:/:/sbin/nologin\n",
        "/etc/group": f"root:x:0:\nsandbox:x:{USER}:\nnogroup:x:65534:\n",
        "/etc/hosts": f"127.0.0.1 localhost {hostname}\n::1 localhost\n",
        "/etc/hostname": f"{hostname}\n",
        "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
        "/etc/resolv.conf": f"nameserver {DNS}\n" if network is Network.OUTBOUND else "",
    }


def bwrap_arguments(
    plan: Plan,
    *,
    hostname: str,
    binds: Sequence[Bind],
    files: Mapping[str, int],
    status_fd: int,
    sync_fd: int | None,
    features: frozenset[str],
) -> list[str]:
    """
    Return everything before the command.

    files maps a path inside to a descriptor that holds its content; features are the options
    this bwrap knows, because the older ones are still good enough to do without the newest.
    """
    args = ["--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    args += ["--unshare-cgroup-try", "--uid", str(USER), "--gid", str(USER)]
    if not plan.nested_namespaces and "--disable-userns" in features:
        args += ["--disable-userns"]
    # A session of its own, so that nothing inside can type into the server's terminal.
    args += ["--new-session", "--hostname", hostname, "--json-status-fd", str(status_fd)]
    if sync_fd is not None:
        args += ["--sync-fd", str(sync_fd)]
    # Nor does bwrap learn the environment of the guest: it lives on inside as pid 1, whose memory
    # the guest's children can read, and the guest hides its secret from them.
    args += ["--clearenv", *system_arguments()]
    args += ["--proc", "/proc", "--dev", "/dev"]
    args += _tmpfs("/dev/shm", plan.shm_mb, features)  # noqa: S108
    args += _tmpfs("/tmp", plan.tmp_mb, features)  # noqa: S108
    args += ["--perms", "0700", "--dir", HOME]
    for path, fd in files.items():
        args += ["--file", str(fd), path]
    for path in ETC:
        args += ["--ro-bind-try", path, path]
    for bind in binds:
        args += ["--ro-bind" if bind.read_only else "--bind", str(bind.source), bind.target]
    args += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", WORKSPACE]
    return args


def system_arguments() -> list[str]:
    """Show /usr, and /bin, /lib and their like as they are on the host, merged into it or not."""
    args = ["--ro-bind", "/usr", "/usr"]
    for path in (Path("/", name) for name in SYSTEM_LINKS):
        if path.is_symlink():
            args += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            args += ["--ro-bind", str(path), str(path)]
    return args


def _tmpfs(path: str, size_mb: int, features: frozenset[str]) -> list[str]:
    size = ["--size", str(size_mb * MIB)] if "--size" in features else []
    return [*size, "--perms", "1777", "--tmpfs", path]

"""What this user may write, and what others must not read."""

from __future__ import annotations

import getpass
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

from deployers.base import Isolation
from sandboxplatform.doctor.disk import nearest_existing
from sandboxplatform.doctor.findings import Finding, fail, ok, warn
from sandboxplatform.doctor.subject import Subject

FOR_OTHERS, FOR_GROUP, GROUP_WRITES = stat.S_IRWXO, stat.S_IRWXG, stat.S_IWGRP
DOCKER_SOCKET = "unix:///var/run/docker.sock"
SECONDS = 10


def look(subject: Subject) -> Iterator[Finding]:
    yield ok("running as root" if os.geteuid() == 0 else f"running as user {_user()}")
    yield from _folder("DATA_DIR", settings.DATA_DIR, FOR_OTHERS | GROUP_WRITES)
    yield from _secret_key(settings.DATA_DIR / "secret_key")
    mounts = Path(subject.platform.DEFAULT_MOUNT_DIR).absolute()
    yield from _folder("DEFAULT_MOUNT_DIR", mounts, FOR_OTHERS)
    yield from _docker_socket()
    deployer = subject.deployer
    if deployer is None:
        yield from _user_namespaces()
    elif deployer.isolation is Isolation.NAMESPACE:
        yield ok("user namespaces allowed")  # or it would not have been chosen


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.geteuid())  # a uid that no passwd file knows, as in some containers


def _folder(name: str, folder: Path, forbidden: int) -> Iterator[Finding]:
    there = nearest_existing(folder)
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        yield fail(
            f"{name} {str(folder)!r} cannot be written: {error.strerror}",
            f"Change the permissions of {there}, or set {name} to another folder.",
        )
        return
    if there != folder:
        yield ok(f"{name} can be made")
    elif (mode := stat.S_IMODE(folder.stat().st_mode)) & forbidden:
        yield warn(
            f"{name} {str(folder)!r} has mode {mode:04o}, which lets others in",
            f"chmod 700 {folder}",
        )
    else:
        yield ok(f"{name} writable, mode {mode:04o}")


def _secret_key(file: Path) -> Iterator[Finding]:
    if not file.exists():
        return  # the setting SECRET_KEY is used
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & (FOR_OTHERS | FOR_GROUP):
        yield fail(
            f"{str(file)!r} has mode {mode:04o}: others can read the key that signs logins and "
            f"opens guests",
            f"chmod 600 {file}; if somebody may have read it, delete it and restart the server, "
            f"which makes a new one.",
        )
    else:
        yield ok(f"secret_key mode {mode:04o}")


def _docker_socket() -> Iterator[Finding]:
    address = os.environ.get("DOCKER_HOST") or DOCKER_SOCKET
    path = Path(address.removeprefix("unix://"))
    if not address.startswith("unix://") or not path.exists():
        return
    if os.access(path, os.R_OK | os.W_OK):
        yield ok(f"{path} usable")
    else:
        yield warn(
            f"{path} may not be used by this user",
            f"Add the user to the group docker (usermod -aG docker {_user()}, then log in again) "
            f"if sandboxes are to run on Docker.",
        )


def _user_namespaces() -> Iterator[Finding]:
    """Make one, where no deployer could be asked whether it can."""
    program = shutil.which("unshare")
    if program is None:
        return
    try:
        tried = subprocess.run(
            [program, "--user", "--map-root-user", "true"],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return
    if tried.returncode == 0:
        yield ok("user namespaces allowed")
    else:
        yield warn(
            f"this user cannot make user namespaces: {tried.stderr.strip()}",
            "The local deployer needs them: `sysctl -w kernel.unprivileged_userns_clone=1` (Debian), "
            "`sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` (Ubuntu) or `sysctl -w "
            "user.max_user_namespaces=15000`; or set CONTAINER_DEPLOYMENT=docker.",
        )

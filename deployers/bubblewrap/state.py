"""
The state directory: what a later process needs to find, judge and remove a sandbox.

    <root>/<instance>/<name>/   record.json, status (written by bwrap), log, workspace/, …
    <root>/<hash>.sock          where the guest answers; out of the sandbox's sight, so that
                                nothing inside can put another socket in its place

A sandbox's directory is made first and removed last. Whoever changes it holds a lock on it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from deployers.bubblewrap.processes import Process
from deployers.bubblewrap.record import Record
from deployers.errors import Rejected, Unavailable, UnsupportedSpec
from deployers.specs import NAME
from deployers.trees import delete_tree

SOCKET_PATH_LIMIT = 107
"""Bytes in the path of a Unix socket (sun_path, without its NUL)."""

LOCK_SECONDS = 30
LOG_LIMIT = 768 * 1024
LOG_KEPT = 256 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """Where one sandbox is kept."""

    directory: Path
    socket: Path
    handle: str
    """Short and unique among the sandboxes of all installations."""

    @property
    def group(self) -> str:
        """Return the name of its control group."""
        return f"sandboxplatform-{self.handle}"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def status(self) -> Path:
        return self.directory / "status"

    @property
    def network_log(self) -> Path:
        return self.directory / "network.log"

    @property
    def workspace(self) -> Path:
        return self.directory / "workspace"

    def read(self) -> Record | None:
        """Return the record; None if there is none, or it was cut off by a crash."""
        try:
            return Record.from_json((self.directory / "record.json").read_text())
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write(self, record: Record) -> None:
        fresh = self.directory / "record.json.new"
        fresh.write_text(record.to_json())
        fresh.replace(self.directory / "record.json")

    def update(self, **changes: object) -> None:
        """Change the record, if there is one."""
        record = self.read()
        if record:
            self.write(replace(record, **changes))

    def read_status(self) -> dict[str, int]:
        """Return what bwrap has written about the sandbox so far: child-pid, exit-code, …"""
        try:
            lines = self.status.read_text().splitlines()
        except OSError:
            return {}
        found: dict[str, int] = {}
        for line in lines:
            with contextlib.suppress(ValueError):
                found.update(json.loads(line))
        return found

    def first_process(self) -> Process | None:
        """Return the sandbox's pid 1 as seen from outside, None if it is gone."""
        status = self.read_status()
        pid, namespace = status.get("child-pid"), status.get("pid-namespace")
        if pid is None:
            return None
        process = Process.of(pid)
        try:
            is_ours = str(Path(f"/proc/{pid}/ns/pid").readlink()) == f"pid:[{namespace}]"
        except OSError:
            return None
        return process if is_ours else None

    def tail(self, lines: int) -> str:
        """Return the last lines of the log."""
        text = b""
        for path in (self.directory / "log.old", self.log):
            with contextlib.suppress(FileNotFoundError), path.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(0, size - LOG_KEPT))
                text += log.read(LOG_KEPT)
        kept = text.decode(errors="replace").splitlines()[-lines:] if lines > 0 else []
        return "\n".join(kept)

    def trim_log(self) -> None:
        """Cut the log, which the guest holds open, when it has grown large."""
        try:
            if self.log.stat().st_size <= LOG_LIMIT:
                return
            with self.log.open("rb+") as log:
                log.seek(-LOG_KEPT, os.SEEK_END)
                (self.directory / "log.old").write_bytes(log.read())
                log.truncate(0)
        except FileNotFoundError:
            return

    def is_locked(self) -> bool:
        """Is somebody changing this sandbox now?"""
        try:
            fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def delete(self, *, keep_directory: bool = False) -> None:
        """Delete everything kept of the sandbox; the directory itself goes last."""
        self.socket.unlink(missing_ok=True)
        for path in self.directory.iterdir():
            if path.is_dir() and not path.is_symlink():
                delete_tree(path)
            else:
                path.unlink(missing_ok=True)
        if not keep_directory:
            self.directory.rmdir()


class StateDirectory:
    """All places of one installation below root."""

    def __init__(self, root: Path, instance: str) -> None:
        self.root = Path(os.path.abspath(root))  # noqa: PTH100  # resolve() would follow links
        self._instance = instance
        is_plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,40}", instance)
        self.home = self.root / (instance if is_plain else _digest(instance))
        if len(os.fsencode(self.root / f"{_digest('')}.sock")) > SOCKET_PATH_LIMIT:
            raise Rejected(
                f"The option state_dir ({self.root}) is too long for the sockets in it: a socket's "
                f"path has at most {SOCKET_PATH_LIMIT} bytes. Choose a shorter directory."
            )

    def prepare(self, *more: Path) -> None:
        """Make the directories that hold everything, and more below them."""
        # As root, sandboxes run as other users, who must get to their workspace; what is not
        # theirs to see is protected by its own mode, and not bound into any sandbox.
        mode = 0o711 if os.geteuid() == 0 else 0o700
        for directory in (self.root, self.home, *more):
            directory.mkdir(mode=mode, parents=True, exist_ok=True)

    def place(self, name: str) -> Place:
        if not NAME.fullmatch(name):
            raise UnsupportedSpec(f"{name!r} cannot name a sandbox.")
        handle = _digest(f"{self._instance}/{name}")
        return Place(self.home / name, self.root / f"{handle}.sock", handle)

    def names(self) -> list[str]:
        try:
            return sorted(path.name for path in self.home.iterdir() if NAME.fullmatch(path.name))
        except FileNotFoundError:
            return []

    @contextlib.contextmanager
    def locked(self, name: str, *, create: bool = False) -> Iterator[Place | None]:
        """Hold one sandbox's directory; None if it does not exist and is not to be created."""
        place = self.place(name)
        fd = self._lock(place, create)
        try:
            yield None if fd is None else place
        finally:
            if fd is not None:
                os.close(fd)

    def _lock(self, place: Place, create: bool) -> int | None:
        deadline = time.monotonic() + LOCK_SECONDS
        pause = 0.001
        while True:
            if create:
                self.prepare(place.directory)
            try:
                fd = os.open(place.directory, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                if create:
                    continue
                return None
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(fd), place.directory.stat()):
                    return fd
            except FileNotFoundError:
                pass  # removed by whoever held it before us
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(fd)
                    raise Unavailable(
                        f"{place.directory.name} has been in the hands of another process for "
                        f"{LOCK_SECONDS} s; try again."
                    ) from None
                time.sleep(pause)
                pause = min(pause * 2, 0.05)
            os.close(fd)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]

"""Bring files in: written under a hidden name first, then renamed, so that none is ever half."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat

from starlette.exceptions import HTTPException

from .paths import Place

UNFINISHED = re.compile(r"\.upload-[0-9a-f]{16}\.part")
UNFINISHED_GLOB = ".upload-*.part"


def is_unfinished(name: str) -> bool:
    """Is this the hidden name of an upload that is still coming in?"""
    return UNFINISHED.fullmatch(name) is not None


class Staging:
    """
    Hidden files in one directory, coming in one after the other.

    begin(), write(), end() take a file in; land() gives it its name. Everything blocks.
    Whatever happens, discard() has to be called in the end: it removes what is still hidden.
    """

    def __init__(self, place: Place) -> None:
        self.directory = os.dup(place.directory)
        self._waiting: set[str] = set()
        self._fd: int | None = None

    def begin(self, mode: int | None = None) -> str:
        """Open a file for write() and return its hidden name; without mode the umask counts."""
        name = _hidden_name()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(name, flags, 0o666 if mode is None else mode, dir_fd=self.directory)
        self._waiting.add(name)
        if mode is not None:
            os.fchmod(self._fd, mode)
        return name

    def write(self, data: bytes | memoryview) -> None:
        assert self._fd is not None  # noqa: S101  between begin() and end()
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def end(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def land(self, name: str, place: Place) -> os.stat_result:
        """Let a file become the one at a place; what it replaces hands on its permissions."""
        replaced = file_to_replace(place)
        if replaced is not None and stat.S_ISREG(replaced.st_mode):
            os.chmod(name, stat.S_IMODE(replaced.st_mode) & 0o777, dir_fd=self.directory)
        os.rename(name, place.name, src_dir_fd=self.directory, dst_dir_fd=place.directory)
        self._waiting.discard(name)
        return os.stat(place.name, dir_fd=place.directory, follow_symlinks=False)

    def set_aside(self, place: Place) -> str | None:
        """Hide the file at a place until put_back() or discard(); None where there is none."""
        name = _hidden_name()
        if file_to_replace(place) is None:
            return None
        os.rename(place.name, name, src_dir_fd=place.directory, dst_dir_fd=self.directory)
        self._waiting.add(name)
        return name

    def put_back(self, name: str, place: Place) -> None:
        os.rename(name, place.name, src_dir_fd=self.directory, dst_dir_fd=place.directory)
        self._waiting.discard(name)

    def discard(self) -> None:
        self.end()
        for name in self._waiting:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self.directory)
        os.close(self.directory)


def _hidden_name() -> str:
    return f".upload-{secrets.token_hex(8)}.part"


def file_to_replace(place: Place) -> os.stat_result | None:
    """Return what an upload would replace; raise HTTPException 409 where it cannot."""
    there = place.status()
    if there is not None and stat.S_ISDIR(there.st_mode):
        raise HTTPException(409, f"{place.path} is a directory; give the path of a file.")
    return there

"""A few files whose content is known: all of them land, or the workspace is as it was."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field

from .paths import Paths, Place
from .uploads import Staging, file_to_replace


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to be written."""

    path: str
    content: bytes = field(repr=False)
    mode: int | None = None
    """Permissions; None: those of the file it replaces, else what the umask leaves."""


def write_together(paths: Paths, files: Sequence[NewFile]) -> None:
    """
    Write all files, or raise and undo what has been done for them. Blocks.

    Keeps a directory open for every directory that gets files.
    """
    writing = _Writing(paths)
    try:
        for file in files:
            writing.stage(file)
        writing.land()
    except BaseException:
        writing.undo()
        raise
    writing.discard()


class _Writing:
    """
    Files on their way.

    Each waits in the directory it is for, whichever file system that is on, so that all that
    could fail but a renaming has succeeded before the first of them lands.
    """

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._made: list[str] = []
        self._stagings: dict[tuple[int, int], Staging] = {}
        self._staged: list[tuple[Staging, str, Place]] = []
        self._landed: list[tuple[Staging, str | None, Place]] = []

    def stage(self, file: NewFile) -> None:
        with self._paths.place(file.path, made=self._made) as place:
            replaced = file_to_replace(place)
            staging = self._staging_in(place)
        mode = file.mode
        if mode is None and replaced is not None and stat.S_ISREG(replaced.st_mode):
            mode = stat.S_IMODE(replaced.st_mode) & 0o777
        name = staging.begin(mode)
        try:
            staging.write(file.content)
        finally:
            staging.end()
        self._staged.append((staging, name, Place(staging.directory, place.name, place.path)))

    def _staging_in(self, place: Place) -> Staging:
        status = os.fstat(place.directory)
        key = status.st_dev, status.st_ino
        if key not in self._stagings:
            self._stagings[key] = Staging(place)
        return self._stagings[key]

    def land(self) -> None:
        for staging, name, place in self._staged:
            before = staging.set_aside(place)
            try:
                staging.land(name, place)
            except BaseException:
                if before is not None:
                    staging.put_back(before, place)
                raise
            self._landed.append((staging, before, place))

    def undo(self) -> None:
        for staging, before, place in reversed(self._landed):
            with contextlib.suppress(OSError):
                if before is None:
                    os.unlink(place.name, dir_fd=place.directory)
                else:
                    staging.put_back(before, place)
        self.discard()
        for path in reversed(self._made):
            with contextlib.suppress(OSError):
                os.rmdir(path)

    def discard(self) -> None:
        for staging in self._stagings.values():
            staging.discard()

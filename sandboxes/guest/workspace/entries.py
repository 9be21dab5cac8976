"""List, look for, remove, move and make what is in the workspace. All of it blocks."""

from __future__ import annotations

import os
import shutil
import stat
from typing import Any

from starlette.exceptions import HTTPException

from .paths import MissingParent, Paths, Place
from .uploads import is_unfinished

DEEPEST = 200
"""Directories below each other that a listing enters; each costs an open file."""


def entry(path: str, status: os.stat_result) -> dict[str, Any]:
    kind = _kind(status)
    return {
        "path": _printable(path),
        "name": _printable(path.rpartition("/")[2]),
        "type": kind,
        "size": status.st_size if kind == "file" else None,
        "mtime_ms": status.st_mtime_ns // 1_000_000,
    }


def _kind(status: os.stat_result) -> str:
    if stat.S_ISREG(status.st_mode):
        return "file"
    if stat.S_ISDIR(status.st_mode):
        return "dir"
    return "symlink" if stat.S_ISLNK(status.st_mode) else "other"


def _printable(path: str) -> str:
    # A name on disk may be any bytes; an answer has to be UTF-8.
    return os.fsencode(path).decode("utf-8", "replace")


def list_entries(paths: Paths, path: str, depth: int) -> list[dict[str, Any]]:
    """Return what is below a directory, sorted, each directory before what it holds."""
    with paths.place(path) as place:
        try:
            directory = os.open(place.name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=place.directory)
        except FileNotFoundError:
            raise _missing(place) from None
        except NotADirectoryError:
            raise HTTPException(409, f"{place.path} is not a directory.") from None
        found: list[dict[str, Any]] = []
        _collect(directory, place.path, min(depth, DEEPEST), found)
        return found


def _collect(directory: int, path: str, depth: int, found: list[dict[str, Any]]) -> None:
    try:
        with os.scandir(directory) as scan:
            children = sorted(scan, key=lambda child: child.name)
        for child in children:
            if is_unfinished(child.name):
                continue
            try:
                status = child.stat(follow_symlinks=False)
            except OSError:
                continue  # gone meanwhile
            child_path = f"{path}/{child.name}"
            found.append(entry(child_path, status))
            if depth > 1 and stat.S_ISDIR(status.st_mode):
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
                try:
                    below = os.open(child.name, flags, dir_fd=directory)
                except OSError:
                    continue  # not readable for this user, or gone
                _collect(below, child_path, depth - 1, found)
    finally:
        os.close(directory)


def exists(paths: Paths, path: str) -> bool:
    try:
        with paths.place(path) as place:
            return place.status() is not None
    except HTTPException as error:
        # Below something that is missing or is a file, nothing exists.
        if error.status_code in (404, 409):
            return False
        raise


def remove(paths: Paths, path: str) -> None:
    """Remove a file, a link or a whole directory; what does not exist is removed already."""
    try:
        with paths.place(path, follow=False) as place:
            if place.is_root:
                raise HTTPException(
                    409, f"{place.path} is the workspace itself; remove what is in it instead."
                )
            status = place.status()
            if status is None:
                return
            if stat.S_ISDIR(status.st_mode):
                shutil.rmtree(place.name, dir_fd=place.directory)
            else:
                os.unlink(place.name, dir_fd=place.directory)
    except MissingParent:
        return


def move(paths: Paths, source: str, destination: str) -> dict[str, Any]:
    """Rename; the destination's parents are made, and a file or link there is replaced."""
    with paths.place(source, follow=False) as start:
        if start.is_root:
            raise HTTPException(409, f"{start.path} is the workspace itself and cannot move.")
        moving = start.status()
        if moving is None:
            raise _missing(start)
        with paths.place(destination, follow=False, make_parents=True) as end:
            there = end.status()
            if there is not None and stat.S_ISDIR(there.st_mode):
                raise HTTPException(
                    409, f"{end.path} is a directory already; name the entry to make in it."
                )
            if stat.S_ISDIR(moving.st_mode) and f"{end.path}/".startswith(f"{start.path}/"):
                raise HTTPException(409, f"{start.path} cannot be moved into itself.")
            os.rename(start.name, end.name, src_dir_fd=start.directory, dst_dir_fd=end.directory)
            return entry(end.path, moving)


def make_directory(paths: Paths, path: str) -> bool:
    """Make a directory and its parents; return False if it is there already."""
    with paths.place(path, make_parents=True) as place:
        if place.name != ".":
            try:
                os.mkdir(place.name, dir_fd=place.directory)
            except FileExistsError:
                status = place.status()
                if status is not None and not stat.S_ISDIR(status.st_mode):
                    raise HTTPException(
                        409, f"{place.path} exists and is not a directory."
                    ) from None
            else:
                return True
        return False


def _missing(place: Place) -> HTTPException:
    return HTTPException(404, f"{place.path} does not exist.")

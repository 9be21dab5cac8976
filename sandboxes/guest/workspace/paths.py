"""
Find a path inside the workspace, and never outside, whoever moves what meanwhile.

The kernel is asked for one component at a time, relative to an open directory and without
following links; links and ".." are taken apart here. So there is no moment between a check and
a use at which a swapped link could lead out. (openat2's RESOLVE_BENEATH would be one call, but
it refuses absolute links, even into the workspace, and neither gVisor nor older seccomp profiles
know it.)
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from starlette.exceptions import HTTPException

OPEN_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
MOST_LINKS = 40
"""What Linux itself follows in one path."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a path ends: a name in an open directory. Valid while its context is open."""

    directory: int
    """A file descriptor for *at() calls."""

    name: str
    """A single component; "." for the directory itself. It need not exist."""

    path: str
    """As a caller would write it: absolute, below the workspace."""

    is_root: bool = False

    def status(self) -> os.stat_result | None:
        """Return what is there, not following a link; None if nothing is."""
        try:
            return os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)
        except FileNotFoundError:
            return None


class MissingParent(HTTPException):
    """A directory on the way does not exist."""

    def __init__(self, path: str) -> None:
        super().__init__(404, f"{path} does not exist.")


class Paths:
    """The paths of one workspace."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._roots = {root, os.path.realpath(root)}

    @contextlib.contextmanager
    def place(
        self,
        path: str,
        *,
        follow: bool = True,
        make_parents: bool = False,
        made: list[str] | None = None,
    ) -> Iterator[Place]:
        """
        Open the directory that holds a path, and close it afterwards.

        follow says whether a link at the very end is followed, too. With made, parents are made
        and added to it, each after the one that holds it. Raises HTTPException: 403 for what
        leads outside, 404 (MissingParent) or 409 for a directory on the way that is missing or
        is none, 422 for a path that cannot be one.
        """
        shown = self.absolute(path)
        opened = [os.open(self.root, OPEN_DIRECTORY & ~os.O_NOFOLLOW)]
        try:
            if made is None and make_parents:
                made = []
            name = self._descend(shown, opened, follow=follow, made=made)
            yield Place(opened[-1], name, shown, is_root=name == "." and len(opened) == 1)
        finally:
            for fd in opened:
                os.close(fd)

    def absolute(self, path: str) -> str:
        """Write a path the one way: absolute, without "..", below the workspace."""
        if not path:
            raise HTTPException(422, "The path is empty.")
        if "\0" in path:
            raise HTTPException(422, "The path holds a NUL character.")
        full = os.path.normpath(os.path.join(self.root, path))
        if self._below(full, self.root) is None:
            raise self._outside(path)
        return full

    def _descend(
        self, shown: str, opened: list[int], *, follow: bool, made: list[str] | None
    ) -> str:
        todo = deque(_components(self._below(shown, self.root) or ""))
        links = 0
        while todo:
            part = todo.popleft()
            if part == "..":
                if len(opened) == 1:
                    raise self._outside(shown)
                os.close(opened.pop())
                continue
            if not todo and not follow:
                return part
            target = _link_target(part, opened[-1])
            if target is not None:
                links += 1
                if links > MOST_LINKS:
                    raise HTTPException(409, f"{shown} leads through too many links.")
                todo.extendleft(reversed(self._enter_link(target, shown, opened)))
            elif not todo:
                return part
            else:
                opened.append(self._open_directory(part, opened[-1], shown, made))
        return "."

    def _enter_link(self, target: str, shown: str, opened: list[int]) -> list[str]:
        """Return the components a link stands for, back at the root if it is absolute."""
        if not target.startswith("/"):
            return _components(target)
        for root in self._roots:
            below = self._below(target, root)
            if below is not None:
                while len(opened) > 1:
                    os.close(opened.pop())
                return _components(below)
        raise self._outside(shown)

    def _open_directory(self, name: str, parent: int, shown: str, made: list[str] | None) -> int:
        try:
            return os.open(name, OPEN_DIRECTORY, dir_fd=parent)
        except FileNotFoundError:
            if made is None:
                raise MissingParent(shown) from None
        except NotADirectoryError:
            raise HTTPException(409, f"{name} on the way to {shown} is not a directory.") from None
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=parent)
            # By its real path: shown may lead there through links.
            made.append(os.path.join(os.readlink(f"/proc/self/fd/{parent}"), name))
        return os.open(name, OPEN_DIRECTORY, dir_fd=parent)

    @staticmethod
    def _below(path: str, root: str) -> str | None:
        """Return the rest of a path after the root, None if it is elsewhere."""
        if path == root:
            return ""
        prefix = root.rstrip("/") + "/"
        return path[len(prefix) :] if path.startswith(prefix) else None

    def _outside(self, path: str) -> HTTPException:
        return HTTPException(
            403, f"{path} leads outside the workspace; only {self.root} can be reached."
        )


def _components(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _link_target(name: str, directory: int) -> str | None:
    """Return where a link points, None for anything that is no link, or is nothing."""
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise

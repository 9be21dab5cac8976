"""Free space and inodes where the platform and its engine write."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from sandboxplatform.doctor.findings import Finding, fail, ok, warn
from sandboxplatform.doctor.subject import Subject

GIB, MIB = 2**30, 2**20
LOW_SHARE, LOW_BYTES = 0.10, 2 * GIB
FULL_SHARE, FULL_BYTES = 0.02, 200 * MIB
FULL_INODES = 10_000


@dataclass(frozen=True, slots=True)
class Space:
    """What is left of one file system; shares are of what was ever to be had, 0 to 1."""

    free_bytes: int
    free_share: float
    free_inodes: int = 0
    inode_share: float = 1.0
    """1 where a file system makes inodes as they are needed."""


def look(subject: Subject) -> Iterator[Finding]:
    places = {
        "DATA_DIR": settings.DATA_DIR,
        "DEFAULT_MOUNT_DIR": Path(subject.platform.DEFAULT_MOUNT_DIR).absolute(),
    }
    facts = subject.engine_facts
    if facts and facts.root.is_dir():
        places["the engine's images"] = facts.root
    by_device: dict[int, tuple[Path, list[str]]] = {}
    for name, path in places.items():
        there = nearest_existing(path)
        by_device.setdefault(there.stat().st_dev, (there, []))[1].append(name)
    for path, names in by_device.values():
        yield judge(", ".join(names), space_of(path))


def nearest_existing(path: Path) -> Path:
    """Return the path, or the folder above it that is there."""
    return next(each for each in (path, *path.parents) if each.exists())


def space_of(path: Path) -> Space:
    """Return what this user may still write, as df counts it."""
    found = os.statvfs(path)
    usable = found.f_blocks - found.f_bfree + found.f_bavail
    return Space(
        free_bytes=found.f_bavail * found.f_frsize,
        free_share=found.f_bavail / usable if usable else 1.0,
        free_inodes=found.f_favail,
        inode_share=found.f_favail / found.f_files if found.f_files else 1.0,
    )


def judge(name: str, space: Space) -> Finding:
    """
    Fail where sandboxes are about to fail, warn well before.

    2 % of a large disk is plenty, so that a small share alone is a warning.
    """
    left = f"{name}: {readable(space.free_bytes)} ({space.free_share:.0%}) free"
    few_inodes = f"{name}: {space.free_inodes} inodes ({space.inode_share:.0%}) free"
    fix = (
        f"Free space for {name}: remove old files, or unused images with `docker image prune`; or "
        f"move DATA_DIR or DEFAULT_MOUNT_DIR to a larger file system."
    )
    inode_fix = f"Remove small files on the file system of {name}, or move it to another."
    is_low = space.free_bytes < LOW_BYTES
    if space.free_bytes < FULL_BYTES or (space.free_share < FULL_SHARE and is_low):
        return fail(left, fix)
    if space.inode_share < FULL_SHARE and space.free_inodes < FULL_INODES:
        return fail(few_inodes, inode_fix)
    if space.free_share < LOW_SHARE or is_low:
        return warn(left, fix)
    if space.inode_share < LOW_SHARE:
        return warn(few_inodes, inode_fix)
    return ok(left)


def readable(size: int) -> str:
    """Return a number of bytes as a person would say it."""
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / MIB:.0f} MiB"

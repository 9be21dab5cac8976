"""
Ceilings by control groups, version 1 or 2, as far as this process may make groups.

A sandbox's groups are made next to the server's own, or in the nearest group above it where that
is possible, so that what limits the server as a whole limits its sandboxes too.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from deployers.bubblewrap.processes import Process, kill
from deployers.errors import Unavailable

PERIOD_US = 100_000

BWRAP_PROCESSES = 2
"""bwrap outside and pid 1 inside; they are not counted against the sandbox."""


@dataclass(frozen=True, slots=True)
class Cgroups:
    """Where groups can be made: one directory per controller (the same for all in version 2)."""

    version: int
    parents: dict[str, Path]

    def paths(self, group: str) -> list[Path]:
        return sorted({parent / group for parent in self.parents.values()})

    def make(self, group: str, *, memory_mb: int, processes: int, cpus: float | None) -> None:
        for path in self.paths(group):
            path.mkdir(exist_ok=True)
        memory = str(memory_mb * 1024 * 1024)
        pids = str(processes + BWRAP_PROCESSES)
        if self.version == 1:
            self._set(group, "memory", "memory.limit_in_bytes", memory)
            # Memory and swap together; the file is missing where the kernel does not count swap.
            self._set(group, "memory", "memory.memsw.limit_in_bytes", memory, optional=True)
        else:
            self._set(group, "memory", "memory.max", memory)
            self._set(group, "memory", "memory.swap.max", "0", optional=True)
        self._set(group, "pids", "pids.max", pids)
        if cpus is None or "cpu" not in self.parents:
            return
        quota = str(max(1000, round(cpus * PERIOD_US)))
        if self.version == 1:
            self._set(group, "cpu", "cpu.cfs_period_us", str(PERIOD_US))
            self._set(group, "cpu", "cpu.cfs_quota_us", quota)
        else:
            self._set(group, "cpu", "cpu.max", f"{quota} {PERIOD_US}")

    def add(self, group: str, pid: int) -> None:
        for path in self.paths(group):
            (path / "cgroup.procs").write_text(str(pid))

    def _set(
        self, group: str, controller: str, name: str, value: str, *, optional: bool = False
    ) -> None:
        path = self.parents[controller] / group / name
        if not optional or path.exists():
            path.write_text(value)

    def works(self) -> bool:
        """Try it: in version 2 a group can often be made that no process may be moved into."""
        group = f"sandboxplatform-probe-{secrets.token_hex(6)}"
        paths = self.paths(group)
        try:
            self.make(group, memory_mb=64, processes=64, cpus=1)
            script = 'for file; do echo 0 > "$file" || exit 1; done'
            files = [str(path / "cgroup.procs") for path in paths]
            command = ["sh", "-c", script, "sh", *files]
            tried = subprocess.run(command, capture_output=True, timeout=10, check=False)
            return tried.returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            return False
        finally:
            with contextlib.suppress(Unavailable):
                remove(paths, seconds=2)


def find(proc: Path = Path("/proc/self")) -> Cgroups | None:
    """Return where groups with ceilings for memory and processes can be made, if anywhere."""
    mounts = _mounts((proc / "mountinfo").read_text())
    own = {}
    for line in (proc / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(","), path))
    return _find_v1(mounts, own) or _find_v2(mounts, own)


def _mounts(mountinfo: str) -> list[tuple[str, set[str], str, Path]]:
    """Return type, controllers, root and place of each cgroup mount; see proc(5), mountinfo."""
    found = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            root, place = left.split(" ")[3:5]
            place = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), place)
            found.append((kind, set(options.split(",")), root, Path(place)))
    return found


def _below(place: Path, root: str, own: str) -> Path:
    """Return our own group's directory; the mount's top if ours is not under it."""
    inside = Path(own)
    if root != "/" and inside.is_relative_to(root):
        inside = Path("/") / inside.relative_to(root)
    path = place / str(inside).lstrip("/")
    return path if ".." not in inside.parts and path.is_dir() else place


def _find_v1(mounts: list, own: dict[str, str]) -> Cgroups | None:
    parents = {
        controller: _below(place, root, own[controller])
        for kind, controllers, root, place in mounts
        for controller in ("memory", "pids", "cpu")
        if kind == "cgroup" and controller in controllers and controller in own
    }
    candidate = Cgroups(1, parents)
    return candidate if {"memory", "pids"} <= parents.keys() and candidate.works() else None


def _find_v2(mounts: list, own: dict[str, str]) -> Cgroups | None:
    for kind, _, root, place in mounts:
        if kind != "cgroup2":
            continue
        nearest = _below(place, root, own.get("", "/"))
        for path in (nearest, *nearest.parents):
            enabled = _enable(path)
            if {"memory", "pids"} <= enabled:
                candidate = Cgroups(2, dict.fromkeys(enabled & {"memory", "pids", "cpu"}, path))
                if candidate.works():
                    return candidate
            if path == place:
                break
    return None


def _enable(path: Path) -> set[str]:
    """Return the controllers that groups below path have, after asking for ours."""
    control = path / "cgroup.subtree_control"
    try:
        enabled = set(control.read_text().split())
        for controller in {"memory", "pids", "cpu"} - enabled:
            # Refused while processes live in this very group, and without the right to write.
            with contextlib.suppress(OSError):
                control.write_text(f"+{controller}")
        return set(control.read_text().split())
    except OSError:
        return set()


def members(paths: list[Path]) -> list[Process]:
    found = set()
    for path in paths:
        with contextlib.suppress(OSError):
            found.update(map(int, (path / "cgroup.procs").read_text().split()))
    return [process for pid in found if (process := Process.of(pid))]


def out_of_memory_kills(paths: list[Path]) -> int:
    """Return how many processes of these groups the kernel killed for want of memory."""
    for path in paths:
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError):
                counted = re.search(r"^oom_kill (\d+)$", (path / name).read_text(), re.MULTILINE)
                if counted:
                    return int(counted[1])
    return 0


def remove(paths: list[Path], *, seconds: float) -> None:
    """Kill what is left in these groups and remove them; those that are gone are a success."""
    deadline = time.monotonic() + seconds
    pause = 0.001
    while paths := [path for path in paths if path.exists()]:
        kill(members(paths), seconds=max(0.0, deadline - time.monotonic()))
        for path in paths:
            # Busy for a moment after its last process has ended.
            with contextlib.suppress(OSError):
                path.rmdir()
        if time.monotonic() > deadline:
            raise Unavailable(
                f"The control group {paths[0]} cannot be removed: it is still in use."
            )
        if any(path.exists() for path in paths):
            time.sleep(pause)
            pause = min(pause * 2, 0.05)

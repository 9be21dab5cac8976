"""
Which process is at a step, so that another one sees at once that it died.

A lease alone would keep what a killed process was doing for minutes. A process is told by the
boot of its machine, its pid namespace, its pid and the moment it began, because pids are used
again. Of a process that this one cannot see, another machine's or another container's, nothing
is claimed: there the lease decides.
"""

from __future__ import annotations

import os
from pathlib import Path

START_TIME = 19
"""Position of starttime behind the command's name in /proc/PID/stat (proc_pid_stat(5))."""

NOBODY = "nobody"
"""The mark of a process that has certainly ended."""

_known: dict[int, str] = {}


def current() -> str:
    """Return this process's mark, at most 64 characters."""
    pid = os.getpid()
    if pid not in _known:
        _known.clear()  # what a forked process inherited
        _known[pid] = f"{_scope()}:{pid}:{_began(pid)}"
    return _known[pid]


def is_dead(worker: str) -> bool:
    """Has the process with this mark certainly ended?"""
    if worker == NOBODY:
        return True
    _, pid, began = _parts(worker)
    return can_be_seen(worker) and _began(pid) != began


def can_be_seen(worker: str) -> bool:
    """Is the process with this mark one of those that this process can tell dead from alive?"""
    scope, pid, _ = _parts(worker)
    return worker == NOBODY or (scope == _scope() and pid > 0)


def _parts(worker: str) -> tuple[str, int, str]:
    scope, _, rest = worker.partition(":")
    pid, _, began = rest.partition(":")
    return scope, int(pid) if pid.isdecimal() else 0, began


def _scope() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().replace("-", "")[:12]
    namespace = Path("/proc/self/ns/pid").stat().st_ino
    return f"{boot}/{namespace}"


def _began(pid: int) -> str:
    """Return when a process began, in clock ticks since the boot; "" where there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[START_TIME]

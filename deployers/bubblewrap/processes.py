"""Processes that outlive us: named so that a reused pid is never taken for one of them."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


def boot_id() -> str:
    """Return what differs after every start of the kernel."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int | None:
    """Return when a process began, in clock ticks since boot; None if it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name, which may itself hold spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


@dataclass(frozen=True, slots=True)
class Process:
    """One process of the running kernel: pids are used again, pid and start time are not."""

    pid: int
    start: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        start = start_time(pid)
        return None if start is None else cls(pid, start)

    def is_alive(self) -> bool:
        return start_time(self.pid) == self.start

    def pin(self) -> int | None:
        """Return a pidfd of it, None if it is gone."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return None
        # The descriptor holds the process, so what is compared now cannot change any more.
        if self.is_alive():
            return pidfd
        os.close(pidfd)
        return None


def children(pid: int) -> list[Process]:
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [child for each in listed if (child := Process.of(int(each)))]


def wait(processes: Iterable[Process], *, seconds: float) -> bool:
    """Wait until all have ended; False if the time ran out."""
    return _wait_for([fd for each in processes if (fd := each.pin()) is not None], seconds)


def kill(processes: Iterable[Process], *, seconds: float) -> bool:
    """Kill all and wait until they have ended; False if the time ran out."""
    pidfds = [fd for each in processes if (fd := each.pin()) is not None]
    for pidfd in pidfds:
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return _wait_for(pidfds, seconds)


def _wait_for(pidfds: list[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    waiting = select.poll()
    left = set(pidfds)
    for pidfd in pidfds:
        waiting.register(pidfd, select.POLLIN)
    try:
        while left and (remaining := deadline - time.monotonic()) > 0:
            for pidfd, _ in waiting.poll(remaining * 1000):
                waiting.unregister(pidfd)
                left.discard(pidfd)
    finally:
        for pidfd in pidfds:
            os.close(pidfd)
    return not left

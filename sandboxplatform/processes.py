"""
The server's processes: a parent that watches, the web server and the reaper beside it.

Nothing depends on the parent for correctness: killed at any moment, what it would have done
is done by the next start or by the reaper.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable
from types import FrameType
from typing import BinaryIO

logger = logging.getLogger(__name__)

PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15
"""From <linux/prctl.h>."""

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
HEALTHY_SECONDS = 60
"""A process that ran this long is started again without a longer pause."""


def die_with_parent(parent: int) -> None:
    """Have the kernel send SIGTERM to this process when parent ends; exit if it has already."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        # It ended between the fork and the call, which tells of later ends only.
        os._exit(1)


def take_name(name: str) -> None:
    """Let ps and top show this process, and those it forks, as sandbox-NAME (15 characters)."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_NAME, f"sandbox-{name}".encode()[:15])


def _fork(name: str, run: Callable[[], None], keep_to_parent: Iterable[BinaryIO]) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        for file in keep_to_parent:
            file.close()
        # Of its own group: Ctrl-C reaches the parent alone, which ends the others in order.
        os.setpgid(0, 0)
        die_with_parent(parent)
        take_name(name)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        run()
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        logger.exception("The process %s failed", name)
    finally:
        os._exit(code)


class Supervisor:
    """
    Keep named processes running until a signal, then end them in the order given.

    The first SIGTERM or SIGINT lets them finish, patience seconds long; the second ends them.
    """

    def __init__(
        self,
        processes: dict[str, Callable[[], None]],
        *,
        patience: float,
        farewell: str,
        keep_to_parent: Iterable[BinaryIO] = (),
    ) -> None:
        self._processes = processes
        self._farewell = farewell
        self._patience = patience
        self._keep_to_parent = tuple(keep_to_parent)
        self._pids: dict[str, int] = {}
        self._pauses = dict.fromkeys(processes, FIRST_PAUSE)
        self._start_at: dict[str, float] = {}
        self._signals = 0

    def run(self) -> None:
        """Return after SIGTERM or SIGINT, when every process has ended."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        for name in self._processes:
            self._start(name)
        while not self._signals:
            self._look()
            time.sleep(0.1)
        logger.info("Closing: %s. A second signal ends it now.", self._farewell)
        for name in self._processes:
            self._end(name)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1

    def _start(self, name: str) -> None:
        self._pids[name] = _fork(name, self._processes[name], self._keep_to_parent)
        self._start_at[name] = time.monotonic()

    def _look(self) -> None:
        """Start again what ended by itself, each time after a longer pause."""
        for name in self._processes:
            if name not in self._pids:
                if time.monotonic() >= self._start_at[name]:
                    self._start(name)
                continue
            ended, status = os.waitpid(self._pids[name], os.WNOHANG)
            if ended:
                self._plan_restart(name, os.waitstatus_to_exitcode(status))

    def _plan_restart(self, name: str, code: int) -> None:
        del self._pids[name]
        if time.monotonic() - self._start_at[name] > HEALTHY_SECONDS:
            self._pauses[name] = FIRST_PAUSE
        pause = self._pauses[name]
        logger.error("The %s process ended with %s; starting it again in %.1f s", name, code, pause)
        self._pauses[name] = min(pause * 2, LONGEST_PAUSE)
        self._start_at[name] = time.monotonic() + pause

    def _end(self, name: str) -> None:
        pid = self._pids.pop(name, None)
        if pid is None:
            return
        deadline = time.monotonic() + self._patience
        os.kill(pid, signal.SIGTERM)
        while not os.waitpid(pid, os.WNOHANG)[0]:
            if time.monotonic() > deadline or self._signals > 1:
                logger.warning("The %s process did not end in time; killing it", name)
                # With its children: they are of its group, and nobody else is.
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return
            time.sleep(0.02)

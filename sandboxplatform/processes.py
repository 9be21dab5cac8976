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
from collections.abc import Callable
from types import FrameType

logger = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1
"""From <linux/prctl.h>."""

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0


def die_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent ends."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _fork(name: str, run: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        # Of its own group: Ctrl-C reaches the parent alone, which ends the others in order.
        os.setpgid(0, 0)
        die_with_parent()
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
    """Keep named processes running until a signal, then end them in the order given."""

    def __init__(self, processes: dict[str, Callable[[], None]], *, patience: float) -> None:
        self._processes = processes
        self._patience = patience
        self._pids: dict[str, int] = {}
        self._pauses = dict.fromkeys(processes, FIRST_PAUSE)
        self._stopping = False

    def run(self) -> None:
        """Return after SIGTERM or SIGINT, when every process has ended."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        for name in self._processes:
            self._start(name)
        while not self._stopping:
            self._look()
            time.sleep(0.1)
        for name in self._processes:
            self._end(name)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _start(self, name: str) -> None:
        self._pids[name] = _fork(name, self._processes[name])

    def _look(self) -> None:
        """Start again what ended by itself, each time after a longer pause."""
        for name, pid in list(self._pids.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            code = os.waitstatus_to_exitcode(status)
            pause = self._pauses[name]
            logger.error(
                "The %s process ended with %s; starting it again in %.1f s", name, code, pause
            )
            self._pauses[name] = min(pause * 2, LONGEST_PAUSE)
            time.sleep(pause)
            if not self._stopping:
                self._start(name)

    def _end(self, name: str) -> None:
        pid = self._pids[name]
        deadline = time.monotonic() + self._patience
        os.kill(pid, signal.SIGTERM)
        while not os.waitpid(pid, os.WNOHANG)[0]:
            if time.monotonic() > deadline:
                logger.warning("The %s process did not end in time; killing it", name)
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return
            time.sleep(0.02)

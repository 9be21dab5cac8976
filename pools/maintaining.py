"""The keeper as a process: passes, woken by each claim and by the engine's own news."""

from __future__ import annotations

import threading
import time

from pools.keeper import Keeper
from sandboxes import loop, wakeup, watching

QUIET_SECONDS, LONGEST_GATHER = 0.15, 1.0
"""
A pass waits until the bell was silent so long, or so long in all: a burst of claims is one, and its
callers' first calls come before the starts that make up for it.
"""


def maintain(*, seconds: float) -> None:
    """Keep the pools until SIGTERM or SIGINT; look at least every so many seconds."""
    keeper, stopping = Keeper(), threading.Event()
    watcher = threading.Thread(
        target=watching.watch, args=(stopping, wakeup.ring), name="watcher", daemon=True
    )
    watcher.start()
    with wakeup.Listener() as listener:

        def wait(pause: float) -> None:
            if not listener.wait(pause):
                return
            gathered = time.monotonic() + LONGEST_GATHER
            while not stopping.is_set() and time.monotonic() < gathered:
                if not listener.wait(QUIET_SECONDS):
                    return

        loop.run_every(keeper.keep, seconds=seconds, wait=wait, stopping=stopping)
    keeper.close()
    watcher.join(timeout=2)

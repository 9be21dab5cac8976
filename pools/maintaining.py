"""The keeper as a process: passes, woken by each claim and by the engine's own news."""

from __future__ import annotations

import threading

from pools.keeper import Keeper
from sandboxes import loop, wakeup, watching

GATHER_SECONDS = 0.05
"""From a ring to the pass: a burst of claims is one, and a claim's first call comes before it."""


def maintain(*, seconds: float) -> None:
    """Keep the pools until SIGTERM or SIGINT; look at least every so many seconds."""
    keeper, stopping = Keeper(), threading.Event()
    watcher = threading.Thread(
        target=watching.watch, args=(stopping, wakeup.ring), name="watcher", daemon=True
    )
    watcher.start()
    with wakeup.Listener() as listener:

        def wait(pause: float) -> None:
            if listener.wait(pause):
                stopping.wait(GATHER_SECONDS)

        loop.run_every(keeper.keep, seconds=seconds, wait=wait, stopping=stopping)
    keeper.close()
    watcher.join(timeout=2)

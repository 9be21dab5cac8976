"""The keeper as a process: passes, woken by each claim and by the engine's own news."""

from __future__ import annotations

import threading

from pools.keeper import Keeper
from sandboxes import loop, wakeup, watching


def maintain(*, seconds: float) -> None:
    """Keep the pools until SIGTERM or SIGINT; look at least every so many seconds."""
    keeper, stopping = Keeper(), threading.Event()
    watcher = threading.Thread(
        target=watching.watch, args=(stopping, wakeup.ring), name="watcher", daemon=True
    )
    watcher.start()
    with wakeup.Listener() as listener:
        loop.run_every(keeper.keep, seconds=seconds, wait=listener.wait, stopping=stopping)
    keeper.close()
    watcher.join(timeout=2)

"""Wait a little for what released sandboxes still hold while they are being removed."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from sandboxes import connections

Result = TypeVar("Result")

SECONDS, PAUSE = 5.0, 0.02


def when_there_is_room(
    take: Callable[[], Result], full: type[Exception], is_leaving: Callable[[], bool]
) -> Result:
    """Call take until it does not raise full; give up when nothing is leaving, or in the end."""
    deadline = time.monotonic() + SECONDS
    while True:
        with suppress(full):
            return take()
        if not is_leaving() or time.monotonic() > deadline:
            # What was leaving when there was no room may be gone by now.
            return take()
        connections.let_go()
        time.sleep(PAUSE)

"""Wait for what another thread or process does, up to a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

SECONDS = 30.0


def wait_until(condition: Callable[[], Result], *, seconds: float = SECONDS) -> Result:
    """Return what condition() returns as soon as it is true; fail when the time is up."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"it did not happen within {seconds:g} s"
        time.sleep(0.01)
    return found

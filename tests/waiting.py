"""Wait for what another thread or process does, up to a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

SECONDS = 30.0


def wait_until(condition: Callable[[], Result], *, seconds: float = SECONDS) -> Result:
    """Return what condition() returns as soon as it is true; fail when the time is up."""
    found = eventually(condition, seconds=seconds)
    assert found, f"it did not happen within {seconds:g} s"
    return found


def eventually(question: Callable[[], Result], *, seconds: float = SECONDS) -> Result:
    """Ask until the answer is true; return it, or the last answer when the time is over."""
    deadline = time.monotonic() + seconds
    while not (answer := question()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return answer

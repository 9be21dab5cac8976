"""When which part was away, so that a client's failure can be told from a fault."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

GRACE = {
    # Those that were told to close let requests in flight take SHUTDOWN_TIMEOUT and a little more.
    "server": 12.0,
    "web worker": 3.0,
    "engine": 8.0,
    "containers": 0.0,
    "postgres": 8.0,
    "redis": 3.0,
    "builder": 0.0,
}
"""How many seconds after its restart a part's outage may still be felt."""


@dataclass
class Outage:
    """One time for which a part was away; until is None while it is."""

    part: str
    since: float
    until: float | None = None

    def touches(self, since: float, until: float) -> bool:
        ended = float("inf") if self.until is None else self.until + GRACE[self.part]
        return self.since <= until and since <= ended


class Outages:
    """All outages of a run; times are time.monotonic() values."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: list[Outage] = []

    def begin(self, part: str) -> Outage:
        outage = Outage(part, time.monotonic())
        with self._lock:
            self._all.append(outage)
        return outage

    def note(self, part: str, since: float) -> None:
        """Write down an outage that was noticed when it was over."""
        with self._lock:
            self._all.append(Outage(part, since, time.monotonic()))

    def end(self, outage: Outage) -> None:
        outage.until = time.monotonic()

    def touch(self, parts: frozenset[str], since: float, until: float) -> bool:
        """Was one of the parts away between since and until, or about to recover?"""
        with self._lock:
            return any(one.part in parts and one.touches(since, until) for one in self._all)

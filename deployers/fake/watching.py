"""Who is told which fake sandboxes ended."""

from __future__ import annotations

import queue
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator

LOOK_SECONDS = 0.05
"""How long a set stop, or a failure that was turned on, may go unnoticed."""


class Watchers:
    """The watchers of each instance; all of them are told each name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: defaultdict[str, set[queue.SimpleQueue[str]]] = defaultdict(set)

    def tell(self, instance: str, name: str) -> None:
        with self._lock:
            for told in self._told[instance]:
                told.put(name)

    def names(
        self, instance: str, stop: threading.Event, check: Callable[[], None]
    ) -> Iterator[str]:
        """Keep the contract of Deployer.watch(); check raises when the watch is to break."""
        names = self._names(instance, stop, check)
        # A generator that has not begun would hear nothing, and clean nothing up.
        next(names, None)
        return names

    def _names(
        self, instance: str, stop: threading.Event, check: Callable[[], None]
    ) -> Iterator[str]:
        told: queue.SimpleQueue[str] = queue.SimpleQueue()
        with self._lock:
            self._told[instance].add(told)
        told.put("")
        try:
            while not stop.is_set():
                check()
                try:
                    one = told.get(timeout=LOOK_SECONDS)
                except queue.Empty:
                    continue
                yield one
        finally:
            with self._lock:
                self._told[instance].discard(told)

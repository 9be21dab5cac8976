"""A thread that does one step after another, and can be told to rest."""

from __future__ import annotations

import threading
import traceback

LONGEST_STEP = 120.0
"""Seconds for which a step is waited for; no call of a client may take longer."""


class Stuck(Exception):
    """A step did not end in its time."""


class Pausing(threading.Thread):
    """Calls step() again and again; it begins at rest."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._may_work = threading.Event()
        self._rests = threading.Event()
        self._closing = False
        self.fault = ""
        """What ended the thread before its time."""

    def step(self) -> None:
        raise NotImplementedError

    def run(self) -> None:
        while not self._closing:
            if self._may_work.is_set():
                self._rests.clear()
                try:
                    self.step()
                except Exception:
                    self.fault = f"{self.name} broke: {traceback.format_exc()}"
                    return
            else:
                self._rests.set()
                self._may_work.wait(0.1)

    def go_on(self) -> None:
        self._rests.clear()
        self._may_work.set()

    def pause(self) -> None:
        """Begin no step any more."""
        self._may_work.clear()

    def wait_until_at_rest(self) -> None:
        """Return when the step that was begun before the pause has ended."""
        if self.is_alive() and not self._rests.wait(LONGEST_STEP):
            raise Stuck(f"{self.name} did not end what it had begun in {LONGEST_STEP:g} s")

    def close(self) -> None:
        self._closing = True
        self.pause()

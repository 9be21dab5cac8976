"""
Which sandboxes ended, by descriptors of their first processes.

The kernel tells at once that one has ended, whoever started it. New ones are looked for a few
times a second, which reads one directory, so that one which is started and removed between two
looks is not told.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator

from deployers.bubblewrap.state import StateDirectory
from deployers.errors import Unavailable

LOOK_SECONDS = 0.25


class Watch:
    """The sandboxes of one installation that were running when they were last looked at."""

    def __init__(self, state: StateDirectory) -> None:
        self._state = state
        self._poll = select.poll()
        self._running: dict[int, str] = {}
        """Names by pidfd."""

        self._ended: dict[str, str] = {}
        """When those were started whose end has been told, by name."""

    def names(self, stop: threading.Event) -> Iterator[str]:
        """Keep the contract of Deployer.watch()."""
        names = self._names(stop)
        # To after the first look; and a generator that has not begun would close nothing.
        next(names, None)
        return names

    def _names(self, stop: threading.Event) -> Iterator[str]:
        try:
            found = ["", *self._look()]
            while not stop.is_set():
                yield from found
                found = [self._end(pidfd) for pidfd, _ in self._poll.poll(LOOK_SECONDS * 1000)]
                found += self._look()
        except OSError as error:
            raise Unavailable(f"The sandboxes cannot be watched any more: {error}.") from error
        finally:
            for pidfd in self._running:
                os.close(pidfd)

    def _end(self, pidfd: int) -> str:
        name = self._running.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        return name

    def _look(self) -> Iterator[str]:
        """Take in what was started since; yield what was started and has ended since."""
        there = self._state.names()
        for name in self._ended.keys() - set(there):
            del self._ended[name]
        for name in set(there) - set(self._running.values()):
            place = self._state.place(name)
            # Asked first: what is being started has a record before it has a process.
            if place.is_locked():
                continue
            record = place.read()
            if record is None or record.stage != "started":
                continue
            process = place.first_process() if record.is_of_this_boot() else None
            pidfd = process.pin() if process else None
            if pidfd is not None:
                self._running[pidfd] = name
                self._poll.register(pidfd, select.POLLIN)
            elif self._ended.get(name) != record.started_at:
                self._ended[name] = record.started_at
                yield name

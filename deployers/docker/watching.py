"""Which sandboxes ended, by the engine's stream of events."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from email.utils import parsedate_to_datetime

import requests
import urllib3
from docker.types import CancellableStream

from deployers.docker.engine import Engine, refusal
from deployers.docker.networks import INSTANCE_LABEL, NAME_LABEL
from deployers.errors import DeployerError, Unavailable

ENDS = ("die", "destroy")
"""
What an end shows as, whatever its cause.

Not oom: a sandbox may outlive the kernel's kill of a process of it, and dies if it does not.
"""

STOP_SECONDS = 0.2
"""How long a set stop may go unnoticed."""

DOING = "tell which of its containers ended"


class Watch:
    """
    Watch the containers of one installation, each time from where the last watch ended.

    An engine keeps its last 256 events, so little is lost in between.
    """

    def __init__(self, engine: Engine, *, instance: str) -> None:
        self._events = Events(engine, instance)

    def names(self, stop: threading.Event) -> Iterator[str]:
        """Keep the contract of Deployer.watch()."""
        names = self._names(stop)
        # To where it is connected; and a generator that has not begun would clean nothing up.
        next(names, None)
        return names

    def _names(self, stop: threading.Event) -> Iterator[str]:
        told: queue.SimpleQueue[str | DeployerError] = queue.SimpleQueue()
        reader = _Reader(self._events, told.put)
        reader.start()
        try:
            while not stop.is_set():
                try:
                    one = told.get(timeout=STOP_SECONDS)
                except queue.Empty:
                    continue
                if isinstance(one, DeployerError):
                    raise one
                yield one
        finally:
            reader.end()


class Events:
    """The engine's events about ends, and how far they have been read."""

    def __init__(self, engine: Engine, instance: str) -> None:
        self._engine = engine
        self._instance = instance
        self._since: str | None = None
        """By the engine's clock, which need not be ours."""

    def open(self) -> requests.Response:
        filters = {
            "type": ["container"],
            "label": [f"{INSTANCE_LABEL}={self._instance}"],
            "event": list(ENDS),
        }
        with self._engine.call(DOING) as api:
            # Not api.events(), which waits for its answer without a limit.
            response = api.get(
                f"{api.base_url}/v{api.api_version}/events",
                params={"since": self._since, "filters": json.dumps(filters)},
                stream=True,
                timeout=self._engine.call_timeout,
            )
            if not response.ok:
                with closing(response):
                    raise refusal(response.text, DOING, response.status_code)
        if self._since is None:
            answered_at = parsedate_to_datetime(response.headers["Date"])
            self._since = str(int(answered_at.timestamp()))
        return response

    def read(self, response: requests.Response) -> Iterator[str]:
        """Yield names until the engine says nothing for as long as a call may take."""
        with self._engine.call(DOING):
            try:
                for line in response.iter_lines():
                    event = json.loads(line)
                    seconds, rest = divmod(event["timeNano"] + 1, 10**9)
                    self._since = f"{seconds}.{rest:09}"
                    if name := name_of(event["Actor"]["Attributes"]):
                        yield name
            except requests.ConnectionError as error:
                if isinstance(error.args[0], urllib3.exceptions.ReadTimeoutError):
                    return
                raise
        raise Unavailable(f"The Docker engine at {self._engine.address} ended its events.")


class _Reader(threading.Thread):
    """Read in a thread of its own, so that whoever waits can be woken by more than an event."""

    def __init__(self, events: Events, tell: Callable[[str | DeployerError], None]) -> None:
        super().__init__(name="docker events", daemon=True)
        self._events = events
        self._tell = tell
        self._lock = threading.Lock()
        self._response: requests.Response | None = None
        self._ended = False

    def run(self) -> None:
        """Say "" when it is connected, then each name, and at last the error if there is one."""
        try:
            self._tell_all()
        except DeployerError as error:
            self._tell(error)

    def end(self) -> None:
        with self._lock:
            self._ended = True
            # It may have reached the end by itself just now.
            with contextlib.suppress(AttributeError, OSError):
                CancellableStream(None, self._response).close()

    def _tell_all(self) -> None:
        connected = False
        while True:
            with closing(self._events.open()) as response:
                with self._lock:
                    if self._ended:
                        return
                    self._response = response
                if not connected:
                    connected = True
                    self._tell("")
                # Silence ends a stream, so that a connection which was lost without a word is
                # noticed; the next one goes on from there.
                for name in self._events.read(response):
                    self._tell(name)


def name_of(attributes: Mapping[str, str]) -> str:
    """Return the name of the sandbox that an event is about."""
    return attributes[NAME_LABEL]

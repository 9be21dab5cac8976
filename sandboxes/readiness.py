"""The one waiting loop: until a sandbox's guest answers, dies, or its time is up."""

from __future__ import annotations

import http.client
import socket
import time
from urllib.parse import unquote, urlsplit

from deployers.base import Deployer
from deployers.errors import DeployerError
from deployers.observation import Phase

FIRST_PAUSE = 0.003
LONGEST_PAUSE = 0.1
PATIENCE = 0.02
"""Pauses are this share of the time waited so far, so that they add no more than that to it."""

LOOK_EVERY = 0.5
LOG_LINES = 15


class NotReady(Exception):
    """The guest did not come up; the sentence says why and ends with the log's tail."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def connect(url: str, timeout: float) -> http.client.HTTPConnection:
    """Return a blocking connection to a guest's url, http:// or http+unix://."""
    parts = urlsplit(url)
    if parts.scheme == "http+unix":
        return _UnixConnection(unquote(parts.netloc), timeout)
    return http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout)


def answers(url: str, secret: str, timeout: float) -> bool:
    """Ask the guest's health route once; False for no answer, and for any but 200."""
    connection = connect(url, timeout)
    try:
        connection.request("GET", "/fastapi/healthz", headers={"Authorization": f"Bearer {secret}"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def log_tail(deployer: Deployer, name: str) -> str:
    """Return "Its last words: …", or nothing where there are none to be had."""
    if not deployer.supports_logs:
        return ""
    try:
        tail = deployer.logs(name, lines=LOG_LINES).strip()
    except DeployerError:
        return ""
    return f" Its last log lines:\n{tail}" if tail else " Its log is empty."


def wait_until_ready(
    deployer: Deployer, name: str, url: str, secret: str, *, deadline: float
) -> str:
    """
    Return the guest's url once it answers; deadline is a time.monotonic() value.

    The url may be empty while the infrastructure has not given one: it is asked again.
    """
    begun = looked_at = time.monotonic()
    while (left := deadline - time.monotonic()) > 0:
        if url and answers(url, secret, min(left, 2.0)):
            return url
        if not url or time.monotonic() - looked_at >= LOOK_EVERY:
            looked_at = time.monotonic()
            seen = deployer.inspect(name)
            url = seen.url or url
            if seen.phase in (Phase.BROKEN, Phase.ABSENT, Phase.STOPPED):
                why = seen.detail or f"it is {seen.phase}"
                raise NotReady(
                    f"it ended before its guest answered: {why}.{log_tail(deployer, name)}"
                )
        pause = min(max(FIRST_PAUSE, PATIENCE * (time.monotonic() - begun)), LONGEST_PAUSE)
        time.sleep(min(pause, left))
    raise NotReady(
        "its guest did not answer in time; a larger CREATE_TIMEOUT, or more CPU for the type, "
        f"gives it longer.{log_tail(deployer, name)}"
    )

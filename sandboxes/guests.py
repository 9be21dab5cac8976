"""Kept-alive, pooled connections from this worker's event loop to the guests."""

from __future__ import annotations

import asyncio
import weakref
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import unquote, urlsplit

import aiohttp
from yarl import URL

from sandboxes.directory import Place

SOCKETS_KEPT = 2_000
CONNECT_SECONDS = 5.0
MARGIN_SECONDS = 3.0
"""How much longer than the guest's own limit an answer is waited for."""


class Unreachable(Exception):
    """No guest answers at the sandbox's address."""


class TooSlow(Exception):
    """The guest took the call and did not answer in time."""


class Connections:
    """
    The client sessions of one event loop.

    Guests reached by TCP share one pool. A guest behind a Unix socket has a pool of its own,
    because the client library ties a pool to a socket; the least recently used are closed.
    """

    def __init__(self) -> None:
        self._tcp: aiohttp.ClientSession | None = None
        self._unix: OrderedDict[str, aiohttp.ClientSession] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()

    def session(self, url: str) -> tuple[aiohttp.ClientSession, str]:
        """Return the session for a guest's url, and the base of its http:// addresses."""
        parts = urlsplit(url)
        if parts.scheme != "http+unix":
            if self._tcp is None:
                self._tcp = self._make(aiohttp.TCPConnector(limit=0, keepalive_timeout=60))
            return self._tcp, url.rstrip("/")
        path = unquote(parts.netloc)
        session = self._unix.get(path)
        if session is None:
            session = self._make(aiohttp.UnixConnector(path=path, limit=0, keepalive_timeout=60))
            self._unix[path] = session
            if len(self._unix) > SOCKETS_KEPT:
                self.drop(next(iter(self._unix)))
        self._unix.move_to_end(path)
        return session, "http://guest"

    @staticmethod
    def _make(connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            # A guest's answer may carry long header lines of its own making.
            max_line_size=65536,
            max_field_size=65536,
        )

    def drop(self, path: str) -> None:
        """Close the pool of one Unix socket, once calls in flight have let go of it."""
        if session := self._unix.pop(path, None):
            task = asyncio.ensure_future(session.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close every connection."""
        sessions = [*self._unix.values(), *([self._tcp] if self._tcp else [])]
        self._unix.clear()
        self._tcp = None
        for session in sessions:
            await session.close()


_by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Connections] = (
    weakref.WeakKeyDictionary()
)


def connections() -> Connections:
    """Return the running event loop's connections."""
    loop = asyncio.get_running_loop()
    found = _by_loop.get(loop)
    if found is None:
        found = _by_loop[loop] = Connections()
    return found


def headers_for(place: Place) -> dict[str, str]:
    """Return what every request to this guest carries: its secret, and session affinity."""
    affinity = f"s{place.key}"
    return {
        "Authorization": f"Bearer {place.secret}",
        "x-agentrun-session-id": affinity,
        "x-agentscope-runtime-session-id": affinity,
    }


@asynccontextmanager
async def request(
    place: Place,
    method: str,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    **options: object,
) -> AsyncIterator[aiohttp.ClientResponse]:
    """
    Send one request to the guest; path is as the guest sees it, already quoted.

    Raise Unreachable when nobody answers there. A kept-alive connection that the guest closed
    meanwhile is tried once more by the client library where the method allows it.
    """
    session, base = connections().session(place.url)
    try:
        async with session.request(
            method,
            URL(base + path, encoded=True),
            headers={**(headers or {}), **headers_for(place)},
            allow_redirects=False,
            **options,
        ) as response:
            yield response
    except (aiohttp.ClientConnectorError, aiohttp.ServerDisconnectedError) as error:
        raise Unreachable(str(error)) from error


async def call(
    place: Place, method: str, path: str, *, json: object = None, limit: float | None = None
) -> tuple[int, bytes]:
    """
    Make one JSON call; return the answer's status and body as they came.

    limit is in seconds; None: the sandbox's own time limit and a margin. Raise Unreachable or
    TooSlow.
    """
    options: dict[str, object] = {} if json is None else {"json": json}
    try:
        async with (
            asyncio.timeout(place.timeout + MARGIN_SECONDS if limit is None else limit),
            request(place, method, path, **options) as response,
        ):
            return response.status, await response.read()
    except TimeoutError as error:
        raise TooSlow from error
    except aiohttp.ClientError as error:
        raise Unreachable(type(error).__name__) from error

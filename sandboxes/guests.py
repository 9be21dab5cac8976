"""Kept-alive, pooled connections from this worker's event loop to the guests."""

from __future__ import annotations

import asyncio
import weakref
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import aiohttp
from yarl import URL

from sandboxes import actions, binding, directory
from sandboxes.directory import Place
from sandboxes.refusals import Refusal, TooSlow
from sandboxes.threads import engine_threads, in_thread

SOCKETS_KEPT = 2_000
CONNECT_SECONDS = 5.0
MARGIN_SECONDS = 3.0
"""How much longer than the guest's own limit an answer is waited for."""


class Unreachable(Exception):
    """No guest answers at the sandbox's address; sent tells whether it may have had the request."""

    def __init__(self, sentence: str, *, sent: bool) -> None:
        super().__init__(sentence)
        self.sent = sent


@dataclass(slots=True)
class _Pool:
    """The connections to one Unix socket, and how many requests use them now."""

    session: aiohttp.ClientSession
    in_flight: int = 0


class Connections:
    """
    The client sessions of one event loop.

    Guests reached by TCP share one pool. A guest behind a Unix socket has a pool of its own,
    because the client library ties a pool to a socket; those longest unused are closed.
    """

    def __init__(self) -> None:
        self._tcp: aiohttp.ClientSession | None = None
        self._unix: OrderedDict[str, _Pool] = OrderedDict()

    @asynccontextmanager
    async def session(self, url: str) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
        """Yield the session for a guest's url, and the base of its http:// addresses."""
        parts = urlsplit(url)
        if parts.scheme != "http+unix":
            if self._tcp is None:
                self._tcp = self._make(aiohttp.TCPConnector(limit=0, keepalive_timeout=60))
            yield self._tcp, url.rstrip("/")
            return
        path = unquote(parts.netloc)
        pool = self._unix.get(path)
        if pool is None:
            connector = aiohttp.UnixConnector(path=path, limit=0, keepalive_timeout=60)
            pool = self._unix[path] = _Pool(self._make(connector))
        self._unix.move_to_end(path)
        pool.in_flight += 1
        try:
            yield pool.session, "http://guest"
        finally:
            pool.in_flight -= 1
            await self._close_surplus()

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

    async def _close_surplus(self) -> None:
        while len(self._unix) > SOCKETS_KEPT:
            path, pool = next(iter(self._unix.items()))
            if pool.in_flight:
                return
            del self._unix[path]
            await pool.session.close()

    async def close(self) -> None:
        """Close every connection."""
        sessions = [pool.session for pool in self._unix.values()]
        sessions += [self._tcp] if self._tcp else []
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

    Raise Unreachable when nobody answers there, or another sandbox's guest. A kept-alive
    connection that the guest closed meanwhile is tried once more by the client library where the
    method allows it.
    """
    try:
        async with (
            connections().session(place.url) as (session, base),
            session.request(
                method,
                URL(base + path, encoded=True),
                headers={**(headers or {}), **headers_for(place)},
                allow_redirects=False,
                **options,
            ) as response,
        ):
            if binding.answered_by_another(path, response.status, response.headers):
                # Its address was given anew; where it is now may be known already.
                await directory.forget_async(place.name)
                raise Unreachable("another sandbox's guest answers there", sent=False)
            yield response
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise Unreachable(str(error), sent=False) from error
    except aiohttp.ServerDisconnectedError as error:
        raise Unreachable(str(error), sent=True) from error


async def why_unreachable(place: Place) -> Refusal:
    """Return what to tell the caller of a sandbox whose guest does not answer."""
    why = await in_thread(
        actions.explain_silence, place.name, actor="server", executor=engine_threads
    )
    # The next call asks the database, which knows by now.
    await directory.forget_async(place.name)
    return why


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
        raise TooSlow(f"Sandbox {place.name} did not answer in time.") from error
    except aiohttp.ClientError as error:
        raise Unreachable(type(error).__name__, sent=True) from error


async def first_used(place: Place) -> Place:
    """
    Return a place that answers, for a first use that could not be sent a second time.

    Raise what to tell the caller where there is none.
    """
    try:
        # Longer than a connection may take: one that hangs is no slow answer.
        await call(place, "GET", "/fastapi/healthz", limit=CONNECT_SECONDS + MARGIN_SECONDS)
    except Unreachable:
        return await directory.replacement(place)
    return place

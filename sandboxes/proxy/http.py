"""One HTTP request, its body and its answer streamed as fast as either side takes them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import aiohttp

from sandboxes import guests
from sandboxes.directory import Place
from sandboxes.proxy.answers import Note, Receive, Scope, Send
from sandboxes.proxy.headers import forwarded, header, returned

logger = logging.getLogger(__name__)


class _ClientGone(Exception):
    """The client closed its connection; there is nobody to answer."""


class _Upload:
    """A request's body, read from the client as fast as the guest takes it."""

    def __init__(self, receive: Receive, *, empty: bool) -> None:
        self._receive = receive
        self._finished = asyncio.Event()
        if empty:
            self._finished.set()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                # Ends the upload as broken, so that the guest never takes half a file for whole.
                raise _ClientGone
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body"):
                self._finished.set()
                return

    async def client_left(self) -> None:
        """Return when the client closes its connection after its body was read."""
        await self._finished.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass


def _has_body(scope: Scope) -> bool:
    length = header(scope, b"content-length")
    return bool(header(scope, b"transfer-encoding")) or length not in ("", "0")


async def serve_http(
    place: Place, path: str, scope: Scope, receive: Receive, send: Send, note_use: Note
) -> None:
    upload = _Upload(receive, empty=not _has_body(scope))
    exchange = asyncio.ensure_future(_exchange(place, path, scope, upload, send, note_use))
    watch = asyncio.ensure_future(upload.client_left())
    try:
        await asyncio.wait((exchange, watch), return_when=asyncio.FIRST_COMPLETED)
        if exchange.done():
            exchange.result()
        else:
            logger.info("The client of %s left before its answer was whole", place.name)
    finally:
        exchange.cancel()
        watch.cancel()
        await asyncio.gather(exchange, watch, return_exceptions=True)


async def _exchange(
    place: Place, path: str, scope: Scope, upload: _Upload, send: Send, note_use: Note
) -> None:
    headers, data = forwarded(scope), None
    if _has_body(scope):
        data = aiter(upload)
        if length := header(scope, b"content-length"):
            headers["Content-Length"] = length
    begun = False
    try:
        async with guests.request(
            place, scope["method"], path, headers=headers, data=data
        ) as response:
            await note_use()
            begun = True
            await send(
                {
                    "type": "http.response.start",
                    "status": response.status,
                    "headers": returned(response.raw_headers),
                }
            )
            async for chunk in response.content.iter_any():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
    except (guests.Unreachable, aiohttp.ClientError) as error:
        if isinstance(error.__cause__, _ClientGone):
            logger.info("The client of %s left during its upload", place.name)
            return
        if begun:
            # The status is sent already: only a broken connection says that the body is not whole.
            raise ConnectionError(f"{place.name} broke off its answer") from error
        raise await guests.why_unreachable(place) from error

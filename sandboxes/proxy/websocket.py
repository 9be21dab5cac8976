"""One WebSocket: frames of both kinds, subprotocol and close code, both ways."""

from __future__ import annotations

import asyncio

import aiohttp
from yarl import URL

from sandboxes import guests
from sandboxes.directory import Place
from sandboxes.proxy.answers import Answer, Note, Receive, Scope, Send
from sandboxes.proxy.headers import forwarded
from sandboxes.refusals import TooSlow

HANDSHAKE_SECONDS = 15
LARGEST_MESSAGE = 64 * 1024 * 1024
"""Bytes; a message is held whole on its way, so that its kind and end are kept."""


async def serve_websocket(
    place: Place, path: str, scope: Scope, receive: Receive, send: Send, note_use: Note
) -> None:
    async with guests.connections().session(place.url) as (session, base):
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                upstream = await session.ws_connect(
                    URL(base + path, encoded=True),
                    headers={**forwarded(scope), **guests.headers_for(place)},
                    protocols=scope.get("subprotocols", ()),
                    max_msg_size=LARGEST_MESSAGE,
                )
        except aiohttp.WSServerHandshakeError as error:
            sentence = f"The sandbox refused the WebSocket: {error.message}"
            raise Answer(error.status, sentence) from None
        # First, because a time limit on connecting is both: there it had nothing to be slow at.
        except aiohttp.ClientError as error:
            raise await guests.why_unreachable(place) from error
        except TimeoutError:
            raise TooSlow(f"Sandbox {place.name} did not answer in time.") from None
        async with upstream:
            await receive()
            await send({"type": "websocket.accept", "subprotocol": upstream.protocol})
            await note_use()
            await _relay(upstream, receive, send)


async def _relay(upstream: aiohttp.ClientWebSocketResponse, receive: Receive, send: Send) -> None:
    """Pass frames until either side closes."""
    directions = [
        asyncio.ensure_future(_to_guest(receive, upstream)),
        asyncio.ensure_future(_to_client(upstream, send)),
    ]
    try:
        done, _ = await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in directions:
            task.cancel()
        await asyncio.gather(*directions, return_exceptions=True)


async def _to_guest(receive: Receive, upstream: aiohttp.ClientWebSocketResponse) -> None:
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            await upstream.close(code=message.get("code") or 1000)
            return
        if message.get("bytes") is not None:
            await upstream.send_bytes(message["bytes"])
        else:
            await upstream.send_str(message["text"])


async def _to_client(upstream: aiohttp.ClientWebSocketResponse, send: Send) -> None:
    async for message in upstream:
        if message.type == aiohttp.WSMsgType.BINARY:
            await send({"type": "websocket.send", "bytes": message.data})
        elif message.type == aiohttp.WSMsgType.TEXT:
            await send({"type": "websocket.send", "text": message.data})
    code = upstream.close_code or 1011
    # 1004 to 1006 may only be seen, never sent (RFC 6455 section 7.4.1).
    await send({"type": "websocket.close", "code": 1011 if code in (1004, 1005, 1006) else code})

"""
/proxy/{identity}/{path}: any method and WebSockets, streamed both ways to the guest.

A plain ASGI application, because Django's handler collects a request's whole body before it
calls a view. Memory stays constant: each side is read only as fast as the other takes it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import quote, unquote

import aiohttp
from asgiref.sync import sync_to_async
from yarl import URL

from sandboxes import actions, directory, guests, tokens
from sandboxes.directory import Place

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PREFIX = "/proxy/"
GUEST_PREFIX = "/fastapi/"
HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""RFC 9110 section 7.6.1; with whatever the Connection header names."""

NOT_FORWARDED = HOP_BY_HOP | {"authorization", "cookie", "host", "content-length", "expect"}
"""The guest gets its own Authorization; our cookies are none of its business."""

NOT_RETURNED = HOP_BY_HOP | {"set-cookie"}
"""A sandbox must not set cookies on the platform's own origin."""


class Answer(Exception):
    """End the request with this status and sentence."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


async def _caller(scope: Scope) -> tokens.Caller:
    header = _header(scope, b"authorization")
    try:
        return tokens.known_caller(header) or await sync_to_async(
            tokens.authenticate, thread_sensitive=False
        )(header)
    except tokens.InvalidToken as error:
        raise Answer(401, str(error)) from None


async def _place(caller: tokens.Caller, identity: str) -> Place:
    try:
        return await directory.find(caller, identity)
    except actions.Unknown as error:
        raise Answer(404, str(error)) from None
    except actions.Ended as error:
        raise Answer(410, str(error)) from None
    except directory.NotRunning as error:
        raise Answer(409, str(error)) from None


def _target(scope: Scope) -> tuple[str, str]:
    """
    Return the identity and the guest's path with its query, both as the client quoted them.

    A path that would climb out of the guest's prefix is refused.
    """
    raw = scope.get("raw_path") or quote(scope["path"]).encode()
    identity, _, rest = raw.decode("latin-1").removeprefix(PREFIX).partition("/")
    if any(unquote(part) in ("..", ".") for part in rest.split("/")):
        raise Answer(400, "The path must not contain . or .. segments.")
    query = scope.get("query_string", b"").decode("latin-1")
    return unquote(identity), GUEST_PREFIX + rest + (f"?{query}" if query else "")


def _forwarded(scope: Scope) -> dict[str, str]:
    """Return the request's end-to-end headers; repeated ones are joined as RFC 9110 allows."""
    named = {part.strip().lower() for part in _header(scope, b"connection").split(",")}
    result: dict[str, str] = {}
    for key, value in scope["headers"]:
        name, text = key.decode("latin-1"), value.decode("latin-1")
        if name in NOT_FORWARDED or name in named or name.startswith("sec-websocket-"):
            continue
        result[name] = f"{result[name]}, {text}" if name in result else text
    return result


def _returned(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    pairs = [(key.lower(), value) for key, value in headers]
    named = {
        part.strip().lower()
        for key, value in pairs
        if key == b"connection"
        for part in value.decode("latin-1").split(",")
    }
    return [
        (key, value)
        for key, value in pairs
        if key.decode("latin-1") not in NOT_RETURNED and key.decode("latin-1") not in named
    ]


async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one HTTP request or WebSocket below /proxy/."""
    serve = _serve_websocket if scope["type"] == "websocket" else _serve_http
    try:
        identity, path = _target(scope)
        place = await _place(await _caller(scope), identity)
        await serve(place, path, scope, receive, send)
    except Answer as answer:
        await refuse(scope, receive, send, answer.status, answer.detail)


async def refuse(scope: Scope, receive: Receive, send: Send, status: int, detail: str) -> None:
    """Answer with a JSON detail; a WebSocket is closed before it opens, with the same status."""
    body = json.dumps({"detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if scope["type"] == "websocket":
        await receive()
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008, "reason": detail[:120]})
            return
        kind = "websocket.http.response"
    else:
        kind = "http.response"
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})


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
    length = _header(scope, b"content-length")
    return bool(_header(scope, b"transfer-encoding")) or length not in ("", "0")


async def _serve_http(place: Place, path: str, scope: Scope, receive: Receive, send: Send) -> None:
    upload = _Upload(receive, empty=not _has_body(scope))
    exchange = asyncio.ensure_future(_exchange(place, path, scope, upload, send))
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


async def _exchange(place: Place, path: str, scope: Scope, upload: _Upload, send: Send) -> None:
    headers, data = _forwarded(scope), None
    if _has_body(scope):
        data = aiter(upload)
        if length := _header(scope, b"content-length"):
            headers["Content-Length"] = length
    begun = False
    try:
        async with guests.request(
            place, scope["method"], path, headers=headers, data=data
        ) as response:
            begun = True
            await send(
                {
                    "type": "http.response.start",
                    "status": response.status,
                    "headers": _returned(response.raw_headers),
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
        raise Answer(502, await _why_unreachable(place)) from error


async def _why_unreachable(place: Place) -> str:
    return await sync_to_async(actions.mark_lost, thread_sensitive=False)(
        place.name, actor="server"
    )


async def _serve_websocket(
    place: Place, path: str, scope: Scope, receive: Receive, send: Send
) -> None:
    session, base = guests.connections().session(place.url)
    try:
        upstream = await session.ws_connect(
            URL(base + path, encoded=True),
            headers={**_forwarded(scope), **guests.headers_for(place)},
            protocols=scope.get("subprotocols", ()),
            max_msg_size=0,
            autoping=True,
        )
    except aiohttp.WSServerHandshakeError as error:
        raise Answer(error.status, f"The sandbox refused the WebSocket: {error.message}") from None
    except aiohttp.ClientError as error:
        raise Answer(502, f"The sandbox could not be reached: {type(error).__name__}") from None
    async with upstream:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": upstream.protocol})
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

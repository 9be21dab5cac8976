"""
Django's request handling without what only pages need.

The admin's middleware costs a thread hop each way and each, 5 ms together where a shell
command takes 2; the routes of the wire use none of it. An async view runs on the event loop
from end to end and is cancelled when its client leaves; a blocking one has a thread of its own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.base import BaseHandler
from django.core.handlers.exception import convert_exception_to_response
from django.db import close_old_connections
from django.http import HttpResponse

from sandboxes.wire.tools import GuestView
from sandboxes.wire.urls import ROUTES

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BLOCKING_THREADS = 256
"""Most requests of a worker that may wait for the database or the engine at once."""

ASYNC_PATHS = frozenset(
    f"/{name}{suffix}"
    for name, view in ROUTES.items()
    if issubclass(view, GuestView)
    for suffix in ("", "_async")
)


class ClientGone(Exception):
    """The client closed its connection before its request was whole."""


class _Bare(BaseHandler):
    """Resolve and call the view, with no middleware around it."""

    def __init__(self, *, is_async: bool) -> None:
        super().__init__()
        self._view_middleware: list = []
        self._template_response_middleware: list = []
        self._exception_middleware: list = []
        inner = self._get_response_async if is_async else self._get_response
        self._middleware_chain = convert_exception_to_response(inner)


async def _read(receive: Receive, limit: int) -> bytes | None:
    """Return the whole body, or None for one larger than limit bytes."""
    chunks, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            return None
        chunks.append(chunk)
        if not message.get("more_body"):
            return b"".join(chunks)


class WireHandler:
    """The ASGI application of the wire's routes and the health routes."""

    def __init__(self) -> None:
        self._async, self._blocking = _Bare(is_async=True), _Bare(is_async=False)
        self._threads = ThreadPoolExecutor(BLOCKING_THREADS, thread_name_prefix="request")

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        try:
            body = await _read(receive, settings.MAX_BODY_BYTES)
            if body is None:
                detail = f"The body is larger than {settings.MAX_BODY_BYTES} bytes."
                response = HttpResponse(
                    json.dumps({"detail": detail}), content_type="application/json", status=413
                )
            else:
                request = ASGIRequest(scope, BytesIO(body))
                response = await self._answer(request, scope["path"], receive)
        except ClientGone:
            return
        await send(
            {
                "type": "http.response.start",
                "status": response.status_code,
                "headers": [
                    (name.lower().encode("latin-1"), value.encode("latin-1"))
                    for name, value in response.items()
                ]
                + [(b"content-length", b"%d" % len(response.content))],
            }
        )
        await send({"type": "http.response.body", "body": response.content})
        response.close()

    async def _answer(self, request: ASGIRequest, path: str, receive: Receive) -> HttpResponse:
        if path not in ASYNC_PATHS:
            # Not cut off when its client leaves: what it began outside it must also record.
            return await sync_to_async(self._block, thread_sensitive=False, executor=self._threads)(
                request
            )
        view = asyncio.ensure_future(self._async.get_response_async(request))
        watch = asyncio.ensure_future(self._client_left(receive))
        try:
            await asyncio.wait((view, watch), return_when=asyncio.FIRST_COMPLETED)
            if not view.done():
                raise ClientGone
            return view.result()
        finally:
            view.cancel()
            watch.cancel()

    def _block(self, request: ASGIRequest) -> HttpResponse:
        close_old_connections()
        try:
            return self._blocking.get_response(request)
        finally:
            close_old_connections()

    @staticmethod
    async def _client_left(receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

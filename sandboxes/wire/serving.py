"""
Django's request handling without what only pages need, as one ASGI application.

The admin's middleware costs a thread hop each way and each, 5 ms together where a shell
command takes 2; the routes of the wire use none of it. The caller is known before a body is
read. An async view runs on the event loop from end to end and is cancelled when its client
leaves; a blocking one has a thread of its own.
"""

from __future__ import annotations

import asyncio
import json
import re
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
from django.urls import ResolverMatch

from sandboxes import tokens
from sandboxes.telling import KNOWN, Told, told, told_as
from sandboxes.wire.tools import GuestView
from sandboxes.wire.urls import ROUTES
from sandboxes.wire.views import Slow

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

QUICK_THREADS, SLOW_THREADS = 32, 256
"""Requests that ask the database, and those that wait for an engine, at once in a worker."""

SMALL_BODY = 64 * 1024
"""Bytes that a route without a body of its own may be sent."""

SILENCE_SECONDS = 60
"""How long a client may pause in the middle of its body."""


def _paths(kind: type) -> frozenset[str]:
    views = [name for name, view in ROUTES.items() if issubclass(view, kind)]
    return frozenset(f"/{name}{suffix}" for name in views for suffix in ("", "_async"))


RPC_PATHS, ASYNC_PATHS, SLOW_PATHS = _paths(object), _paths(GuestView), _paths(Slow)
API_PREFIX = "/api/v1/"
"""Our own API, served in the same way."""

SLOW_API_PATHS = re.compile(r"/api/v1/sandboxes(/[^/]+/keepalive)?")
INLINE_PATHS = frozenset({"/health", "/healthz"})
"""Answered on the event loop: nothing in them waits."""


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
        self._matches: dict[str, ResolverMatch] = {}

    def resolve_request(self, request: ASGIRequest) -> ResolverMatch:
        """Find the view; a path of the wire, which has no variable part, is resolved once."""
        match = self._matches.get(request.path_info)
        if match is None:
            match = super().resolve_request(request)
            if request.path_info in RPC_PATHS:
                self._matches[request.path_info] = match
        request.resolver_match = match
        return match


def _plain(answer: Told) -> HttpResponse:
    body = json.dumps({"detail": answer.detail})
    return HttpResponse(
        body, content_type="application/json", status=answer.status, headers=answer.headers
    )


async def _read(receive: Receive, limit: int) -> bytes | None:
    """Return the whole body, or None for one larger than limit bytes."""
    chunks, size = [], 0
    while True:
        async with asyncio.timeout(SILENCE_SECONDS):
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


async def _caller(scope: Message) -> tokens.Caller:
    header = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    return await tokens.authenticate_async(header.decode("latin-1"))


class WireApplication:
    """The ASGI application of the wire's routes and the health routes."""

    def __init__(self) -> None:
        self._async, self._blocking = _Bare(is_async=True), _Bare(is_async=False)
        # Apart, so that creates which wait for an engine leave room for everything else.
        self._quick = ThreadPoolExecutor(QUICK_THREADS, thread_name_prefix="quick")
        self._slow = ThreadPoolExecutor(SLOW_THREADS, thread_name_prefix="slow")

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        try:
            response = await self._respond(scope, receive)
        except ClientGone:
            return
        headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in response.items()
        ]
        headers.append((b"content-length", b"%d" % len(response.content)))
        await send(
            {"type": "http.response.start", "status": response.status_code, "headers": headers}
        )
        await send({"type": "http.response.body", "body": response.content})
        response.close()

    async def _respond(self, scope: Message, receive: Receive) -> HttpResponse:
        path, caller, limit = scope["path"], None, SMALL_BODY
        if "\0" in path:
            return _plain(told_as(400, "The path must not contain NUL, which no name has."))
        is_rpc = path in RPC_PATHS
        if is_rpc and scope["method"] != "POST":
            # Whoever asks: an async view may not look the caller up.
            detail = f"{path} does not take {scope['method']}; send POST."
            return _plain(Told(405, detail, {"Allow": "POST"}))
        if is_rpc or path.startswith(API_PREFIX):
            try:
                caller, limit = await _caller(scope), settings.MAX_BODY_BYTES
            except KNOWN as error:  # not inside a view yet, whose errors Django answers
                return _plain(told(error))
        try:
            body = await _read(receive, limit)
        except TimeoutError:
            return _plain(told_as(408, f"Nothing of the body came for {SILENCE_SECONDS} s."))
        if body is None:
            return _plain(told_as(413, f"The body is larger than {limit} bytes."))
        request = ASGIRequest(scope, BytesIO(body))
        request.caller = caller
        if path in INLINE_PATHS:
            return self._blocking.get_response(request)
        if path in ASYNC_PATHS:
            return await self._answer_while_client_stays(request, receive)
        # Not cut off when its client leaves: what it began outside it must also record.
        is_slow = path in SLOW_PATHS or (
            SLOW_API_PATHS.fullmatch(path) and scope["method"] == "POST"
        )
        threads = self._slow if is_slow else self._quick
        answer = sync_to_async(self._block, thread_sensitive=False, executor=threads)
        return await answer(request)

    async def _answer_while_client_stays(
        self, request: ASGIRequest, receive: Receive
    ) -> HttpResponse:
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

"""One log line per request, and its id on everything that is logged while it is served."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import quote

from sandboxes import log_context

logger = logging.getLogger("sandboxplatform.request")

_ACCEPTED = re.compile(r"[\w.-]{1,64}")
_QUIET = ("/health", "/healthz", "/readyz")

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


def _id_of(scope: Message) -> str:
    """Return the caller's X-Request-Id if it is fit for a log, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _ACCEPTED.fullmatch(text := value.decode("latin-1")):
            return text
    return secrets.token_hex(8)


class RequestLog:
    """ASGI middleware: sets the request's id, answers it as X-Request-Id, logs the outcome."""

    def __init__(self, application: Callable[..., Awaitable[None]]) -> None:
        self.application = application

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Send
    ) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.application(scope, receive, send)
            return
        name, begun, status = _id_of(scope), time.perf_counter(), 0
        log_context.current.set(log_context.LogContext(request=name))

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", name.encode("latin-1")),
                ]
            elif message["type"] == "websocket.accept":
                status = 101
            await send(message)

        try:
            await self.application(scope, receive, send_with_id)
        finally:
            level = logging.DEBUG if scope["path"] in _QUIET else logging.INFO
            logger.log(
                level,
                "%s %s %s",
                scope.get("method", "WEBSOCKET"),
                # As it came: decoded, it could hold line breaks and forge lines of the log.
                scope.get("raw_path", b"").decode("latin-1") or quote(scope["path"]),
                status or "broken off",
                extra={
                    "status": status,
                    "milliseconds": round((time.perf_counter() - begun) * 1000, 1),
                },
            )

"""The ASGI application: the wire, the streaming proxy, and Django's pages."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sandboxplatform.settings")
_django = get_asgi_application()

from sandboxes import guests  # noqa: E402  Django must be set up first
from sandboxes.proxy import PREFIX, proxy, refuse  # noqa: E402
from sandboxes.wire.handler import WireHandler  # noqa: E402
from sandboxplatform.request_log import RequestLog  # noqa: E402

Message = MutableMapping[str, Any]

PAGES = ("/admin", "/api/", "/static/")
"""What is served with sessions, cookies and CSRF protection; the rest is the wire."""

_wire = WireHandler()


async def _lifespan(receive: Callable[[], Awaitable[Message]], send: Callable) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            await guests.connections().close()
            await send({"type": "lifespan.shutdown.complete"})
            return


async def _route(scope: Message, receive: Callable, send: Callable) -> None:
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["path"].startswith(PREFIX):
        await proxy(scope, receive, send)
    elif scope["type"] == "websocket":
        await refuse(scope, receive, send, 404, "There is no WebSocket at this path.")
    elif scope["path"].startswith(PAGES):
        await _django(scope, receive, send)
    else:
        await _wire(scope, receive, send)


application = RequestLog(_route)

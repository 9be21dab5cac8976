"""The ASGI application: the wire, the streaming proxy, and Django's pages."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http.request import split_domain_port, validate_host

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sandboxplatform.settings")
_django = get_asgi_application()

from sandboxes import guests  # noqa: E402  Django must be set up first
from sandboxes.proxy import PREFIX, proxy, refuse  # noqa: E402
from sandboxes.wire.serving import API_PREFIX, WireApplication  # noqa: E402
from sandboxplatform.request_log import RequestLog  # noqa: E402

Message = MutableMapping[str, Any]

PAGES = ("/admin", "/api/", "/static/")
"""What is served with sessions, cookies and CSRF protection; the rest is the wire."""

_wire = WireApplication()


async def _lifespan(receive: Callable[[], Awaitable[Message]], send: Callable) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            await guests.connections().close()
            await send({"type": "lifespan.shutdown.complete"})
            return


def _host_is_allowed(scope: Message) -> bool:
    host = next((value for name, value in scope["headers"] if name == b"host"), b"")
    domain, _ = split_domain_port(host.decode("latin-1"))
    return validate_host(domain, settings.ALLOWED_HOSTS)


def _comes_from_another_site(scope: Message) -> bool:
    """
    Tell whether a page of another site makes this request, where no token guards the server.

    Browsers say so in Sec-Fetch-Site (W3C Fetch Metadata); a WebSocket also in Origin, and any
    page may open one.
    """
    platform = settings.PLATFORM
    if platform.BEARER_TOKEN or platform.ALLOW_ANONYMOUS:
        return False
    headers = dict(scope["headers"])
    if headers.get(b"sec-fetch-site", b"none") not in (b"same-origin", b"none"):
        return True
    origin = headers.get(b"origin", b"").partition(b"://")[2]
    return bool(origin) and origin != headers.get(b"host", b"")


async def _route(scope: Message, receive: Callable, send: Callable) -> None:
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif not _host_is_allowed(scope):
        detail = "The server does not answer to this host name; ALLOWED_HOSTS lists those it does."
        await refuse(scope, receive, send, 400, detail)
    elif _comes_from_another_site(scope):
        await refuse(scope, receive, send, 403, "Pages of other sites may not use this server.")
    elif scope["path"].startswith(PREFIX):
        await proxy(scope, receive, send)
    elif scope["type"] == "websocket":
        await refuse(scope, receive, send, 404, "There is no WebSocket at this path.")
    elif scope["path"].startswith(PAGES) and not scope["path"].startswith(API_PREFIX):
        await _django(scope, receive, send)
    else:
        await _wire(scope, receive, send)


async def _answer_when_closing(scope: Message, receive: Callable, send: Callable) -> None:
    """Tell a caller whose request is cut off, because SHUTDOWN_TIMEOUT is over, that it is."""
    begun = False

    async def noticing(message: Message) -> None:
        nonlocal begun
        begun = True
        await send(message)

    try:
        await _route(scope, receive, noticing)
    except asyncio.CancelledError:
        # Raised on, it would be logged as an error of the application, which it is not.
        if scope["type"] == "http" and not begun:
            await refuse(scope, receive, send, 503, "The server is closing; ask again later.")


application = RequestLog(_answer_when_closing)

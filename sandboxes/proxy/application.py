"""
/proxy/{identity}/{path}: who may go where.

A plain ASGI application, because Django's handler collects a request's whole body before it
calls a view. Memory stays constant: each side is read only as fast as the other takes it.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

from sandboxes import directory, guests, heartbeat, tokens
from sandboxes.proxy.answers import Answer, Receive, Scope, Send, refuse
from sandboxes.proxy.headers import header
from sandboxes.proxy.http import serve_http
from sandboxes.proxy.websocket import serve_websocket
from sandboxes.telling import KNOWN, told

PREFIX = "/proxy/"
GUEST_PREFIX = "/fastapi/"


def _target(scope: Scope) -> tuple[str, str]:
    """
    Return the identity and the guest's path with its query, both as the client quoted them.

    A path that would climb out of the guest's prefix is refused.
    """
    raw = scope.get("raw_path") or quote(scope["path"]).encode()
    identity, _, rest = raw.decode("latin-1").removeprefix(PREFIX).partition("/")
    # Decoded as a whole: a web server inside may take %2f for a slash.
    if {"..", "."} & set(unquote(rest).split("/")):
        raise Answer(400, "The path must not contain . or .. segments.")
    identity = unquote(identity)
    if "\0" in identity:
        raise Answer(400, "The path must not contain NUL, which no name has.")
    query = scope.get("query_string", b"").decode("latin-1")
    return identity, GUEST_PREFIX + rest + (f"?{query}" if query else "")


async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one HTTP request or WebSocket below /proxy/."""
    serve = serve_websocket if scope["type"] == "websocket" else serve_http
    try:
        identity, path = _target(scope)
        caller = await tokens.authenticate_async(header(scope, b"authorization"))
        place = await directory.find(caller, identity)
        if not place.used:
            place = await guests.first_used(place)
        async with heartbeat.using(place) as note_use:
            await serve(place, path, scope, receive, send, note_use)
    except Answer as answer:
        await refuse(scope, receive, send, answer.status, str(answer))
    except KNOWN as error:
        answer = told(error)
        await refuse(scope, receive, send, answer.status, answer.detail)

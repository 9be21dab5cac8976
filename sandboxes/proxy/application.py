"""
/proxy/{identity}/{path}: who may go where.

A plain ASGI application, because Django's handler collects a request's whole body before it
calls a view. Memory stays constant: each side is read only as fast as the other takes it.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

from asgiref.sync import sync_to_async

from sandboxes import actions, directory, tokens
from sandboxes.directory import Place
from sandboxes.proxy.answers import Answer, Receive, Scope, Send, refuse
from sandboxes.proxy.headers import header
from sandboxes.proxy.http import serve_http
from sandboxes.proxy.websocket import serve_websocket

PREFIX = "/proxy/"
GUEST_PREFIX = "/fastapi/"


async def _caller(scope: Scope) -> tokens.Caller:
    credentials = header(scope, b"authorization")
    try:
        return tokens.known_caller(credentials) or await sync_to_async(
            tokens.authenticate, thread_sensitive=False
        )(credentials)
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


async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one HTTP request or WebSocket below /proxy/."""
    serve = serve_websocket if scope["type"] == "websocket" else serve_http
    try:
        identity, path = _target(scope)
        place = await _place(await _caller(scope), identity)
        await serve(place, path, scope, receive, send)
    except Answer as answer:
        await refuse(scope, receive, send, answer.status, answer.detail)

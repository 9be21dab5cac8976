"""Which headers pass between a client and a guest, and which do not."""

from __future__ import annotations

from collections.abc import Iterable

from sandboxes.proxy.answers import Scope

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


def header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def forwarded(scope: Scope) -> dict[str, str]:
    """Return the request's end-to-end headers; repeated ones are joined as RFC 9110 allows."""
    named = {part.strip().lower() for part in header(scope, b"connection").split(",")}
    result: dict[str, str] = {}
    for key, value in scope["headers"]:
        name, text = key.decode("latin-1"), value.decode("latin-1")
        if name in NOT_FORWARDED or name in named or name.startswith("sec-websocket-"):
            continue
        result[name] = f"{result[name]}, {text}" if name in result else text
    return result


def returned(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
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

"""The shape of a tool result, which is that of MCP's CallToolResult."""

from __future__ import annotations

from typing import Any


def text(value: str, description: str | None) -> dict[str, Any]:
    return {
        "type": "text",
        "text": _encodable(value),
        "annotations": None,
        "description": description,
    }


def image(data: str, mime_type: str) -> dict[str, Any]:
    """Build an image item; data is base64."""
    return {"type": "image", "data": data, "mimeType": mime_type, "annotations": None}


def result(content: list[dict[str, Any]], *, failed: bool) -> dict[str, Any]:
    return {"meta": None, "content": content, "isError": failed}


def failure(message: str) -> dict[str, Any]:
    """Build the result of a call that produced nothing but a reason."""
    return result([text(message, "stderr")], failed=True)


def _encodable(value: str) -> str:
    # A program may print half of a surrogate pair, and an answer has to be UTF-8.
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "replace").decode()
    return value


def seconds(value: float) -> str:
    return f"{value:g} s"

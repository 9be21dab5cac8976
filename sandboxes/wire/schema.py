"""What drf-spectacular cannot see for itself: the routes served beside Django."""

from __future__ import annotations

_IDENTITY = {
    "name": "identity",
    "in": "path",
    "required": True,
    "description": "The sandbox's name, or its name without prefix.",
    "schema": {"type": "string"},
}
_PATH = {
    "name": "path",
    "in": "path",
    "required": True,
    "description": "Forwarded to the guest as /fastapi/{path}, query included.",
    "schema": {"type": "string"},
}
_ANY = {"content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}


def _operation(method: str) -> dict[str, object]:
    operation: dict[str, object] = {
        "operationId": f"proxy_{method}",
        "description": (
            "Streamed both ways to the sandbox's guest, WebSocket upgrades included; the "
            "workspace's file API is below workspace/."
        ),
        "parameters": [_IDENTITY, _PATH],
        "tags": ["proxy"],
        "security": [{"bearer": []}],
        "responses": {"default": {"description": "What the guest answered.", **_ANY}},
    }
    if method in ("post", "put", "patch"):
        operation["requestBody"] = _ANY
    return operation


def add_streaming_routes(result: dict, generator: object, request: object, public: bool) -> dict:
    """Add /proxy/ to the schema; a hook of drf-spectacular."""
    methods = ("get", "post", "put", "patch", "delete", "head", "options")
    result["paths"]["/proxy/{identity}/{path}"] = {method: _operation(method) for method in methods}
    return result

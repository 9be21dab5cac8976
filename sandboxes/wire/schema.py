"""What drf-spectacular cannot see for itself: the RPC bodies, and the routes beside Django."""

from __future__ import annotations

from drf_spectacular.utils import OpenApiResponse, extend_schema, extend_schema_view
from rest_framework.views import APIView

from sandboxes.wire import serializers

_ERRORS = {
    400: "The body is not JSON.",
    401: "The token is missing or not known.",
    404: "The caller has no such sandbox.",
    409: "The sandbox is not in a state for this.",
    410: "The sandbox has ended.",
    413: "The body is too large.",
    422: "A field is missing, unknown, or of the wrong form; detail names it.",
    415: "The body's Content-Type is not application/json.",
    502: "The deployer refused, or the guest does not answer; detail says what to change.",
    503: "Not now; see Retry-After.",
    504: "The guest did not answer in time.",
}

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


def described(view: type[APIView]) -> type[APIView]:
    """Return a view of an RPC route with its body and answers in the schema."""
    errors = {
        code: OpenApiResponse(serializers.Detail, description=meaning)
        for code, meaning in _ERRORS.items()
    }
    operation = extend_schema(
        tags=["wire"],
        request=view.body,
        responses={200: serializers.Data, **errors},
        description=view.__doc__,
    )
    # A class of its own: one view serves two names, and a schema belongs to a class.
    return extend_schema_view(post=operation)(type(view.__name__, (view,), {}))

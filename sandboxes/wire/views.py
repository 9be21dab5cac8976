"""The RPC routes that change or read rows; those that reach a guest are in tools.py."""

from __future__ import annotations

import functools

from rest_framework.exceptions import ParseError, UnsupportedMediaType, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from sandboxes import actions, directory, heartbeat
from sandboxes.models import Sandbox, Session
from sandboxes.refusals import CapReached
from sandboxes.wire import serializers
from sandboxes.wire.errors import Unprocessable
from sandboxes.wire.records import record


@functools.cache
def _validator(body: type[serializers.Body]) -> serializers.Body:
    """Return one serializer for all requests: validating keeps nothing, making one copies fields."""
    return body()


class RpcView(APIView):
    """One RPC route: a JSON object in, {"data": …} out. Subclasses answer()."""

    body: type[serializers.Body] = serializers.Nothing

    def validated(self, request: Request) -> dict[str, object]:
        """Return the body's fields, or refuse with 422 what is missing, unknown or mistyped."""
        # Also without a body: a browser asks before it sends JSON to another site, and a page
        # of such a site must not reach a server that needs no token.
        if request.content_type.partition(";")[0].strip().lower() != "application/json":
            raise UnsupportedMediaType(request.content_type, "Send Content-Type: application/json.")
        try:
            data = request.data
        except RecursionError:
            raise ParseError("JSON parse error - it is nested too deeply.") from None
        try:
            return _validator(self.body).run_validation(data)
        except ValidationError as error:
            raise Unprocessable(error.detail) from None

    def post(self, request: Request) -> Response:
        return Response({"data": self.answer(request, **self.validated(request))})

    def answer(self, request: Request, **fields: object) -> object:
        raise NotImplementedError


class Slow(RpcView):
    """A route that waits for an engine."""


class CreateFromPool(Slow):
    """Lend a sandbox of a type. Null where MAX_SANDBOX_INSTANCES exist already."""

    body = serializers.CreateFromPool

    def post(self, request: Request) -> Response:
        fields = self.validated(request)
        meta = fields.get("meta") or {}
        try:
            sandbox = actions.create(
                request.user,
                type_name=fields.get("sandbox_type"),
                session_key=meta.get("session_ctx_id"),
                meta=meta,
                environment=fields.get("environment"),
                mount_dir=fields.get("mount_dir"),
            )
        except CapReached as error:
            # The SDK takes null, and nothing else, for "none available".
            return Response({"data": None, "detail": str(error)})
        directory.remember(sandbox)
        heartbeat.note_lending(sandbox)
        return Response({"data": sandbox.name})


class Create(CreateFromPool):
    """Lend a sandbox with the caller's own environment, warm where that can be bound to it."""

    body = serializers.Create


class Release(RpcView):
    """Give a sandbox up for good; true also for one that is gone or unknown."""

    body = serializers.Identity

    def answer(self, request: Request, identity: str) -> bool:
        actions.release(request.user, identity)
        return True


class Start(Slow):
    """Continue a stopped sandbox with its files."""

    body = serializers.Identity

    def answer(self, request: Request, identity: str) -> bool:
        actions.resume(request.user, identity)
        return True


class Stop(Slow):
    """End a sandbox's processes and keep its files."""

    body = serializers.Identity

    def answer(self, request: Request, identity: str) -> bool:
        actions.halt(request.user, identity)
        return True


class GetStatus(RpcView):
    """running, exited, … or null once it has ended."""

    body = serializers.Identity

    def answer(self, request: Request, identity: str) -> str | None:
        return actions.status(request.user, identity)


class GetInfo(RpcView):
    """The sandbox's record."""

    body = serializers.Identity

    def answer(self, request: Request, identity: str) -> dict[str, object]:
        return record(actions.find(request.user, identity))


class GetSessionMapping(RpcView):
    """Names of the sandboxes of one of the caller's sessions."""

    body = serializers.SessionKey

    def answer(self, request: Request, session_ctx_id: str) -> list[str]:
        found = Sandbox.objects.lent_to(request.user).of_sessions()
        found = found.filter(session__key=session_ctx_id)
        return list(found.order_by("pk").values_list("name", flat=True))


class ListSessionKeys(RpcView):
    """Keys of the caller's sessions that have sandboxes, recycled ones included."""

    def answer(self, request: Request) -> list[str]:
        there = Sandbox.objects.lent_to(request.user).of_sessions()
        keys = Session.objects.filter(sandboxes__in=there).distinct().order_by("key")
        return list(keys.values_list("key", flat=True))


class Cleanup(Slow):
    """End all sandboxes of the caller; those of others stay."""

    def answer(self, request: Request) -> bool:
        actions.cleanup(request.user)
        return True

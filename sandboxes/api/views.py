"""Sandboxes by our own API: lists, batches, lifetimes, and how each came up."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import TextField
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from sandboxes import actions, timeline
from sandboxes.api import serializers
from sandboxes.models import Sandbox
from sandboxes.refusals import CapReached
from sandboxes.wire.errors import Unprocessable
from sandboxes.wire.records import record
from sandboxes.wire.serializers import Data
from sandboxes.wire.views import RpcView

TIMELINES = 1000
"""The latest sandboxes of a type, of which percentiles are taken."""


def full_record(sandbox: Sandbox) -> dict[str, object]:
    """Return the wire's record and what only we keep: labels, limits, how it came up."""
    return {
        **record(sandbox),
        "owner": sandbox.owner.get_username() if sandbox.owner else None,
        "labels": sandbox.labels,
        "exact_state": sandbox.state,
        "stop_reason": sandbox.stop_reason or None,
        "detail": sandbox.detail,
        "created_at": sandbox.created_at.timestamp(),
        "expires_at": sandbox.expires_at.timestamp() if sandbox.expires_at else None,
        "idle_seconds": sandbox.idle_limit.total_seconds() if sandbox.idle_limit else None,
        "timeline": sandbox.whole_timeline,
    }


def _duration(seconds: int | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def query_of(request: Request, body: type[serializers.Body]) -> dict[str, object]:
    """Return a request's query, checked like a body."""
    try:
        return body().run_validation(request.query_params.dict())
    except ValidationError as error:
        raise Unprocessable(error.detail) from None


class Sandboxes(RpcView):
    """The caller's sandboxes."""

    body = serializers.CreateSandboxes

    @extend_schema(
        tags=["sandboxes"],
        parameters=[serializers.ListSandboxes],
        responses=Data,
        operation_id="list_sandboxes",
    )
    def get(self, request: Request) -> Response:
        """List them, newest first; next is the after of the following page, null at the end."""
        wanted = query_of(request, serializers.ListSandboxes)
        rows = Sandbox.objects.owned_by(request.user).filter(owner__isnull=False)
        filters = {
            "state": wanted.get("state"),
            "sandbox_type__name": wanted.get("sandbox_type"),
            "session__key": wanted.get("session_ctx_id"),
            "pk__lt": wanted.get("after"),
        }
        rows = rows.filter(**{name: value for name, value in filters.items() if value is not None})
        if label := wanted.get("label"):
            name, value = label
            rows = rows.annotate(label=Cast(KeyTextTransform(name, "labels"), TextField())).filter(
                label=value
            )
        limit = wanted["limit"]
        page = list(
            rows.select_related("sandbox_type", "session", "owner", "replaced_by").order_by("-pk")[
                : limit + 1
            ]
        )
        following = page[limit - 1].pk if len(page) > limit else None
        return Response({"data": [full_record(row) for row in page[:limit]], "next": following})

    @extend_schema(
        tags=["sandboxes"],
        request=serializers.CreateSandboxes,
        responses={201: Data},
        operation_id="create_sandboxes",
    )
    def post(self, request: Request) -> Response:
        """Lend count sandboxes, all or none; the warm ones of them in one transaction."""
        fields = self.validated(request)
        session_key = fields.get("session_ctx_id")
        try:
            lent = actions.create_many(
                request.user,
                fields.get("count", 1),
                type_name=fields.get("sandbox_type"),
                session_key=session_key,
                meta={"session_ctx_id": session_key} if session_key else None,
                environment=fields.get("environment"),
                labels=fields.get("labels"),
                files=tuple(fields.get("files") or ()),
                mount_dir=fields.get("mount_dir"),
                lifetime=_duration(fields.get("lifetime_seconds")),
                idle_limit=_duration(fields.get("idle_seconds")),
            )
        except CapReached as error:
            return Response({"detail": str(error)}, status=503, headers={"Retry-After": "5"})
        found = Sandbox.objects.select_related("sandbox_type", "session", "owner", "replaced_by")
        rows = {row.pk: row for row in found.filter(pk__in=[one.pk for one in lent])}
        for one in lent:
            rows[one.pk].timeline = one.timeline
        return Response({"data": [full_record(rows[one.pk]) for one in lent]}, status=201)


class OneSandbox(RpcView):
    """One of the caller's sandboxes."""

    http_method_names = ["get", "delete"]

    @extend_schema(tags=["sandboxes"], responses=Data, operation_id="get_sandbox")
    def get(self, request: Request, identity: str) -> Response:
        """Return its record, its timeline and its events."""
        sandbox = actions.find(request.user, identity)
        events = sandbox.events.values("at", "old_state", "new_state", "reason", "actor", "detail")
        return Response({"data": {**full_record(sandbox), "events": list(events)}})

    @extend_schema(tags=["sandboxes"], responses={204: None}, operation_id="release_sandbox")
    def delete(self, request: Request, identity: str) -> Response:
        """Give it up for good; one that is unknown or gone is a success."""
        actions.release(request.user, identity)
        return Response(status=204)


class KeepAlive(RpcView):
    """Count as a call to the sandbox, and let it live longer."""

    body = serializers.KeepAlive

    @extend_schema(
        tags=["sandboxes"],
        request=serializers.KeepAlive,
        responses=Data,
        operation_id="keep_alive",
    )
    def post(self, request: Request, identity: str) -> Response:
        """Start its idle limit anew; with lifetime_seconds let it end so long from now."""
        fields = self.validated(request)
        sandbox = actions.keep_alive(
            request.user, identity, lifetime=_duration(fields.get("lifetime_seconds"))
        )
        return Response({"data": full_record(sandbox)})


class Timelines(RpcView):
    """How long each phase of coming up takes."""

    http_method_names = ["get"]

    @extend_schema(tags=["sandboxes"], responses=Data, operation_id="get_timelines")
    def get(self, request: Request) -> Response:
        """Return p50, p95 and count per type and phase, in milliseconds, of the caller's latest."""
        mine = Sandbox.objects.owned_by(request.user).order_by("-pk")
        by_type: dict[str, list[dict[str, object]]] = {}
        for sandbox in mine.select_related("sandbox_type")[:TIMELINES]:
            by_type.setdefault(sandbox.sandbox_type.name, []).append(sandbox.whole_timeline)
        return Response(
            {"data": {kind: timeline.percentiles(found) for kind, found in by_type.items()}}
        )

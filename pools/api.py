"""Pools by our own API: looked at by every caller, changed by those who have the permission."""

from __future__ import annotations

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.exceptions import NotFound, PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response

from pools.figures import record
from pools.models import Pool
from sandboxes.refusals import Refused
from sandboxes.tokens import Caller
from sandboxes.wire.serializers import Body, Data, StrictBooleanField
from sandboxes.wire.views import RpcView

PERMISSION = "pools.change_pool"


class PoolChange(Body):
    """What is to change; what is left out stays."""

    target = serializers.IntegerField(required=False, min_value=0, max_value=10_000)
    ceiling = serializers.IntegerField(
        required=False, min_value=0, max_value=100_000, allow_null=True
    )
    paused = StrictBooleanField(required=False)
    freeze = StrictBooleanField(required=False)


def _may_change(caller: Caller) -> bool:
    return get_user_model().objects.get(pk=caller.user_id).has_perm(PERMISSION)


class Pools(RpcView):
    """All pools."""

    http_method_names = ["get"]

    @extend_schema(tags=["pools"], responses=Data, operation_id="list_pools")
    def get(self, request: Request) -> Response:
        """List them with what is wished for, and how they stand now."""
        pools = Pool.objects.with_figures()
        return Response({"data": [record(pool) for pool in pools]})


class OnePool(RpcView):
    """The pool of one sandbox type."""

    body = PoolChange
    http_method_names = ["get", "patch"]

    @extend_schema(tags=["pools"], responses=Data, operation_id="get_pool")
    def get(self, request: Request, sandbox_type: str) -> Response:
        """Return it with how it stands now."""
        return Response({"data": record(self._find(sandbox_type))})

    @extend_schema(tags=["pools"], request=PoolChange, responses=Data, operation_id="change_pool")
    def patch(self, request: Request, sandbox_type: str) -> Response:
        """Change what is wished for; the keeper acts on it at once."""
        fields = self.validated(request)
        if not _may_change(request.user):
            raise PermissionDenied(
                f"The user {request.user.name} may not change pools: give it the permission "
                f"{PERMISSION} in the admin."
            )
        pool = self._find(sandbox_type)
        for name, value in fields.items():
            setattr(pool, name, value)
        try:
            pool.full_clean()
        except ValidationError as error:
            raise Refused(" ".join(error.messages), field="target") from None
        pool.save(update_fields=list(fields))
        return Response({"data": record(pool)})

    @staticmethod
    def _find(sandbox_type: str) -> Pool:
        pool = Pool.objects.with_figures().filter(sandbox_type__name=sandbox_type).first()
        if pool is None:
            raise NotFound(
                f"The type {sandbox_type!r} has no pool: make one in the admin, or name the type in "
                f"DEFAULT_SANDBOX_TYPE."
            )
        return pool


urlpatterns = [
    path("pools", Pools.as_view(), name="pools"),
    path("pools/<str:sandbox_type>", OnePool.as_view(), name="pool"),
]

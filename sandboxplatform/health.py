"""Is the process alive, and can it serve? Asked by load balancers, without a token."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from django.conf import settings
from django.db import Error, connection
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from deployers.errors import DeployerError
from sandboxes import deployment

logger = logging.getLogger(__name__)

FRESH_SECONDS, STALE_SECONDS = 5.0, 15.0


class _Health(serializers.Serializer):
    status = serializers.CharField()
    version = serializers.CharField()


class _Readiness(serializers.Serializer):
    status = serializers.CharField()
    detail = serializers.CharField(required=False)


class _Open(APIView):
    authentication_classes: list[type] = []
    permission_classes: list[type] = []


class Health(_Open):
    """The wire's health route: the server runs."""

    @extend_schema(responses=_Health, operation_id="health")
    def get(self, request: Request) -> Response:
        version = settings.SPECTACULAR_SETTINGS["VERSION"]
        return Response({"status": "healthy", "version": version})


class Alive(Health):
    """The process answers."""

    @extend_schema(responses=_Health, operation_id="healthz")
    def get(self, request: Request) -> Response:
        return super().get(request)


class Ready(_Open):
    """The database and the deployer answer too; 503 names the one that does not."""

    @extend_schema(responses={200: _Readiness, 503: _Readiness}, operation_id="readyz")
    def get(self, request: Request) -> Response:
        failed = _look()
        if failed is None:
            return _unavailable("Database and deployer are still being looked at; ask again.")
        if failed:
            return _unavailable(f"Not available: {', '.join(failed)}; the server's log says why.")
        return Response({"status": "ready"})


def _unavailable(detail: str) -> Response:
    return Response({"status": "unavailable", "detail": detail}, status=503)


_looked_at = 0.0
_failed: tuple[str, ...] | None = None
_one_at_a_time = threading.Lock()


def _look() -> tuple[str, ...] | None:
    """
    Return what does not answer; a look stands for FRESH_SECONDS, whoever asks how often.

    Only one caller waits for a look. The others have the last one's result meanwhile, or None
    before there is any and when that is old: an engine that hangs must not take the threads of
    other requests, nor be called well.
    """
    global _looked_at, _failed
    if _one_at_a_time.acquire(blocking=False):
        try:
            if _failed is None or time.monotonic() - _looked_at > FRESH_SECONDS:
                checks = {"database": _ask_database, "deployer": _ask_deployer}
                _failed = tuple(name for name, ask in checks.items() if not _answers(name, ask))
                _looked_at = time.monotonic()
        finally:
            _one_at_a_time.release()
    elif time.monotonic() - _looked_at > STALE_SECONDS:
        return None
    return _failed


def _answers(name: str, ask: Callable[[], object]) -> bool:
    try:
        ask()
    except (Error, DeployerError) as error:
        logger.warning("The %s does not answer: %s", name, error)
        return False
    return True


def _ask_database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _ask_deployer() -> None:
    deployment.current().check()

"""Is the process alive, and can it serve? Asked by load balancers, without a token."""

from __future__ import annotations

from django.conf import settings
from django.db import DatabaseError, connection
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from deployers.errors import DeployerError
from sandboxes import deployment


class _Health(serializers.Serializer):
    status = serializers.CharField()
    version = serializers.CharField()


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
    """The database and the deployer answer too; 503 with the reason where one does not."""

    @extend_schema(responses={200: _Health, 503: _Health}, operation_id="readyz")
    def get(self, request: Request) -> Response:
        checks = {"database": self._database(), "deployer": self._deployer()}
        failed = {name: why for name, why in checks.items() if why}
        if failed:
            return Response({"status": "unavailable", "detail": failed}, status=503)
        return Response({"status": "ready"})

    @staticmethod
    def _database() -> str:
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
        except DatabaseError as error:
            return str(error)
        return ""

    @staticmethod
    def _deployer() -> str:
        try:
            deployment.current().check()
        except DeployerError as error:
            return str(error)
        return ""

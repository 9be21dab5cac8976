"""
An extension that gives a server /api/v1/pools, as far as the load tester asks for it.

Its routes come last: a server that has its own answers with those.
"""

from __future__ import annotations

import os

from django.urls import path
from rest_framework.exceptions import PermissionDenied
from rest_framework.response import Response
from rest_framework.views import APIView

from pools.models import Pool
from sandboxes.models import Sandbox
from sandboxplatform import urls


def shown(pool):
    kind = pool.sandbox_type
    return {
        "sandbox_type": kind.name,
        "target": pool.target,
        "warm": Sandbox.objects.warm(kind).count(),
        "coming": Sandbox.objects.coming(kind).count(),
        "freeze": pool.freeze,
    }


class Pools(APIView):
    schema = None

    def get(self, request):
        return Response({"data": [shown(pool) for pool in Pool.objects.all()]})


class OnePool(APIView):
    schema = None

    def patch(self, request, name):
        if os.environ.get("POOLS_ARE_READ_ONLY"):
            raise PermissionDenied("This token may not change pools.")
        Pool.objects.filter(sandbox_type__name=name).update(target=request.data["target"])
        return Response({"data": shown(Pool.objects.get(sandbox_type__name=name))})


urls.urlpatterns += [
    path("api/v1/pools", Pools.as_view()),
    path("api/v1/pools/<str:name>", OnePool.as_view()),
]

"""An extension that makes a server as silent about its pools as the published reference is."""

from __future__ import annotations

from django.http import Http404
from django.urls import path
from rest_framework.views import APIView

from sandboxplatform import urls


class Nothing(APIView):
    schema = None

    def get(self, request):
        raise Http404


urls.urlpatterns.insert(0, path("api/v1/pools", Nothing.as_view()))

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from drf_spectacular.renderers import OpenApiJsonRenderer
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

from sandboxplatform import health

urlpatterns = [
    path("admin/", admin.site.urls),
    path("health", health.Health.as_view(), name="health"),
    path("healthz", health.Alive.as_view(), name="healthz"),
    path("readyz", health.Ready.as_view(), name="readyz"),
    path("api/schema/", SpectacularAPIView.as_view(), name="schema"),
    path(
        "api/schema/swagger-ui/", SpectacularSwaggerView.as_view(url_name="schema"), name="swagger"
    ),
    path(
        "openapi.json",
        SpectacularAPIView.as_view(renderer_classes=[OpenApiJsonRenderer]),
        name="openapi",
    ),
    path("api/v1/", include("sandboxes.api.urls")),
    path("api/v1/", include("pools.api")),
    path("", include("sandboxes.wire.urls")),
]

handler400 = "sandboxplatform.errors.bad_request"
handler403 = "sandboxplatform.errors.forbidden"
handler404 = "sandboxplatform.errors.not_found"
handler500 = "sandboxplatform.errors.server_error"

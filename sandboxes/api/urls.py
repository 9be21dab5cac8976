from __future__ import annotations

from django.urls import path

from sandboxes.api import views

urlpatterns = [
    path("sandboxes", views.Sandboxes.as_view(), name="sandboxes"),
    path("sandboxes/<str:identity>", views.OneSandbox.as_view(), name="sandbox"),
    path("sandboxes/<str:identity>/keepalive", views.KeepAlive.as_view(), name="keepalive"),
    path("timelines", views.Timelines.as_view(), name="timelines"),
]

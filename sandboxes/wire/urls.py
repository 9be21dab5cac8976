"""Each RPC route under its sync and its _async name."""

from __future__ import annotations

from django.urls import path
from rest_framework.views import APIView

from sandboxes.wire import schema, tools, views

ROUTES: dict[str, type[APIView]] = {
    "create_from_pool": views.CreateFromPool,
    "create": views.Create,
    "release": views.Release,
    "start": views.Start,
    "stop": views.Stop,
    "get_status": views.GetStatus,
    "get_info": views.GetInfo,
    "check_health": tools.CheckHealth,
    "list_tools": tools.ListTools,
    "call_tool": tools.CallTool,
    "add_mcp_servers": tools.AddMcpServers,
    "get_session_mapping": views.GetSessionMapping,
    "list_session_keys": views.ListSessionKeys,
    "cleanup": views.Cleanup,
}

urlpatterns = [
    path(f"{name}{suffix}", schema.described(view).as_view(), name=f"{name}{suffix}")
    for name, view in ROUTES.items()
    for suffix in ("", "_async")
]

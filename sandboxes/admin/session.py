from __future__ import annotations

from django.contrib import admin

from sandboxes.admin.base import ReadOnlyAdmin
from sandboxes.models import Session


@admin.register(Session)
class SessionAdmin(ReadOnlyAdmin):
    list_display = ("key", "owner", "created_at", "last_active_at")
    list_select_related = ("owner",)
    list_filter = ("last_active_at",)
    date_hierarchy = "last_active_at"
    search_fields = ("key", "owner__username")

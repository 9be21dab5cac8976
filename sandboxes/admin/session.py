from __future__ import annotations

from django.contrib import admin

from sandboxes.admin.base import ReadOnlyAdmin
from sandboxes.models import Session


@admin.register(Session)
class SessionAdmin(ReadOnlyAdmin):
    list_display = ("key", "owner", "created_at", "last_active_at")
    list_select_related = ("owner",)
    search_fields = ("key", "owner__username")

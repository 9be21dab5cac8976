from __future__ import annotations

from django.contrib import admin

from sandboxes.admin.base import ReadOnlyAdmin
from sandboxes.models import Event


@admin.register(Event)
class EventAdmin(ReadOnlyAdmin):
    ordering = ("-pk",)
    list_display = ("at", "sandbox", "old_state", "new_state", "reason", "actor", "detail")
    list_filter = ("new_state", "reason")
    list_select_related = ("sandbox",)
    search_fields = ("sandbox__name", "actor", "detail")
    date_hierarchy = "at"

from __future__ import annotations

from django.contrib import admin

from sandboxes.admin.base import ReadOnlyAdmin
from sandboxes.models import PortLease


@admin.register(PortLease)
class PortLeaseAdmin(ReadOnlyAdmin):
    list_display = ("port", "sandbox", "leased_at")
    list_filter = ("leased_at",)
    list_select_related = ("sandbox",)
    search_fields = ("port", "sandbox__name")

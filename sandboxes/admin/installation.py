from __future__ import annotations

from django.contrib import admin

from sandboxes.admin.base import ReadOnlyAdmin
from sandboxes.models import Installation


@admin.register(Installation)
class InstallationAdmin(ReadOnlyAdmin):
    list_display = ("id",)

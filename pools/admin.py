"""Pools in the operations console: what is wished for is edited here."""

from __future__ import annotations

from django.contrib import admin

from pools.models import Pool


@admin.register(Pool)
class PoolAdmin(admin.ModelAdmin):
    list_display = ("sandbox_type", "target", "ceiling", "paused")
    list_editable = ("target", "ceiling", "paused")
    list_filter = ("paused",)
    list_select_related = ("sandbox_type",)
    search_fields = ("sandbox_type__name",)

"""Pools in the operations console: what is wished for is edited here, beside how they stand."""

from __future__ import annotations

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from pools.models import COUNTS, Pool
from sandboxes import wakeup


@admin.register(Pool)
class PoolAdmin(admin.ModelAdmin):
    list_display = (
        "sandbox_type",
        "target",
        "ceiling",
        "paused",
        "freeze",
        "now",
        "health",
    )
    list_editable = ("target", "ceiling", "paused", "freeze")
    list_filter = ("paused", "freeze")
    list_select_related = ("sandbox_type",)
    search_fields = ("sandbox_type__name",)
    readonly_fields = ("now", "health", "failures", "retry_at", "last_error")
    actions = ("try_again",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Pool]:
        return super().get_queryset(request).with_figures()

    @admin.display(description="now")
    def now(self, pool: Pool) -> str:
        if pool.pk is None:
            return "–"
        counts = {name: getattr(pool, name) for name in COUNTS}
        return ", ".join(
            f"{count} {name}" for name, count in counts.items() if count or name == "warm"
        )

    @admin.display(description="health")
    def health(self, pool: Pool) -> str | SafeString:
        if not pool.failures:
            return "well"
        resting = pool.retry_at is not None and pool.retry_at > timezone.now()
        words = f"{pool.failures} failed" + (", resting" if resting else "")
        return format_html('<span title="{}">{}</span>', pool.last_error, words)

    @admin.action(permissions=["change"], description="Start missing ones now, after failures")
    def try_again(self, request: HttpRequest, queryset: QuerySet[Pool]) -> None:
        changed = queryset.update(failures=0, retry_at=None, last_error="")
        wakeup.ring()
        self.message_user(request, f"{changed} pools are tried again now.", messages.SUCCESS)

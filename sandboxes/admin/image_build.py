from __future__ import annotations

from datetime import timedelta

from django.contrib import admin
from django.template.defaultfilters import filesizeformat
from django.utils.html import format_html
from django.utils.safestring import SafeString

from sandboxes.admin.base import BadgeMedia, ReadOnlyAdmin, state_badge
from sandboxes.models import ImageBuild


@admin.register(ImageBuild)
class ImageBuildAdmin(ReadOnlyAdmin):
    list_display = (
        "sandbox_type",
        "badge",
        "tag",
        "size",
        "requested_by",
        "created_at",
        "took",
    )
    list_filter = ("state", "sandbox_type")
    list_select_related = ("sandbox_type",)
    search_fields = ("tag", "digest", "requested_by", "detail")
    date_hierarchy = "created_at"
    fields = (
        "sandbox_type",
        "badge",
        "detail",
        "tag",
        "digest",
        "size",
        "requested_by",
        "created_at",
        "started_at",
        "finished_at",
        "took",
        "output",
    )
    readonly_fields = ("badge", "size", "took", "output", "created_at")

    class Media(BadgeMedia):
        pass

    @admin.display(description="state", ordering="state")
    def badge(self, build: ImageBuild) -> SafeString:
        reason = "given up" if build.is_abandoned else ""
        return state_badge(build.state, reason, build.detail)

    @admin.display(description="size", ordering="size_bytes", empty_value="-")
    def size(self, build: ImageBuild) -> str | None:
        return None if build.size_bytes is None else filesizeformat(build.size_bytes)

    @admin.display(description="took", empty_value="-")
    def took(self, build: ImageBuild) -> timedelta | None:
        if build.started_at is None or build.finished_at is None:
            return None
        return timedelta(seconds=round((build.finished_at - build.started_at).total_seconds()))

    @admin.display(description="log")
    def output(self, build: ImageBuild) -> SafeString:
        return format_html('<pre class="log">{}</pre>', build.log)

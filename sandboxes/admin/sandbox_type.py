from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from sandboxes import registry, timeline
from sandboxes.models import Sandbox, SandboxType

HEADINGS = ("phase", "p50", "p95", "count")
LATEST = 1000
"""The newest sandboxes of a type, of which its percentiles are taken."""


@admin.register(SandboxType)
class SandboxTypeAdmin(admin.ModelAdmin):
    list_display = ("name", "enabled", "image_used", "security_level", "cpus", "memory_mb")
    list_filter = ("enabled", "security_level", "network", "built_in")
    search_fields = ("name", "description", "image")

    @admin.display(description="image")
    def image_used(self, kind: SandboxType) -> str:
        return registry.image_of(kind.name, kind.image)

    def get_readonly_fields(self, request: HttpRequest, obj: SandboxType | None = None) -> tuple:
        # A built-in type's name is part of the wire.
        return ("name", "phases") if obj and obj.built_in else ("phases",)

    @admin.display(description="how its sandboxes come up")
    def phases(self, kind: SandboxType) -> SafeString | str:
        latest = Sandbox.objects.filter(sandbox_type=kind).order_by("-pk")[:LATEST]
        found = timeline.percentiles(one.whole_timeline for one in latest)
        if not found:
            return "None was made yet."
        rows = format_html_join(
            "",
            "<tr><td>{}</td><td>{} ms</td><td>{} ms</td><td>{}</td></tr>",
            ((name, one["p50"], one["p95"], one["count"]) for name, one in found.items()),
        )
        head = format_html_join("", "<th>{}</th>", ((word,) for word in HEADINGS))
        return format_html("<table><tr>{}</tr>{}</table>", head, rows)

    def has_delete_permission(self, request: HttpRequest, obj: SandboxType | None = None) -> bool:
        if obj and obj.built_in:
            return False
        return super().has_delete_permission(request, obj)

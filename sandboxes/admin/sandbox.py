from __future__ import annotations

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from sandboxes import actions
from sandboxes.admin.base import BadgeMedia, ReadOnlyAdmin, state_badge
from sandboxes.models import Event, Sandbox
from sandboxes.states import StopReason


class EventInline(admin.TabularInline):
    model = Event
    extra = 0
    can_delete = False
    fields = ("at", "old_state", "new_state", "reason", "actor", "detail")
    readonly_fields = fields

    def has_add_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False


@admin.register(Sandbox)
class SandboxAdmin(ReadOnlyAdmin):
    list_display = ("name", "badge", "sandbox_type", "owner", "session", "created_at")
    list_filter = ("state", "sandbox_type", "stop_reason")
    list_select_related = ("sandbox_type", "owner", "session")
    search_fields = ("name", "session__key", "owner__username")
    # The environment may hold what callers keep secret.
    exclude = ("environment", "timeline", "worker")
    readonly_fields = ("came_up",)
    inlines = (EventInline,)
    date_hierarchy = "created_at"
    actions = ("release_selected",)

    class Media(BadgeMedia):
        pass

    @admin.display(description="state", ordering="state")
    def badge(self, sandbox: Sandbox) -> SafeString:
        return state_badge(sandbox.state, sandbox.stop_reason, sandbox.detail)

    @admin.display(description="how it came up")
    def came_up(self, sandbox: Sandbox) -> SafeString:
        found = sandbox.whole_timeline
        phases = format_html_join("", "<tr><td>{}</td><td>{} ms</td></tr>", found.get("phases", ()))
        kind, because = found.get("kind", ""), found.get("because", "")
        words = f"{kind}: {because}" if because else kind
        return format_html("{}<table>{}</table>", words, phases)

    @admin.action(permissions=["stop"], description="Release selected sandboxes")
    def release_selected(self, request: HttpRequest, queryset: QuerySet[Sandbox]) -> None:
        live = list(queryset.live())
        gone = actions.stop_all(
            live, reason=StopReason.ADMIN, actor=f"admin:{request.user.get_username()}"
        )
        already, pending = queryset.count() - len(live), len(live) - gone
        self.message_user(
            request,
            f"Released {gone}, already gone {already}, still being removed {pending}.",
            messages.WARNING if pending else messages.SUCCESS,
        )

    def has_stop_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("sandboxes.stop_sandbox")

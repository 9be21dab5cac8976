from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from sandboxes.models import Sandbox


class ReadOnlyAdmin(admin.ModelAdmin):
    """Rows that the platform writes: they can be looked at."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False


def state_badge(sandbox: Sandbox) -> SafeString:
    """Return the state as a coloured word, the stop reason beside it."""
    words = f"{sandbox.state}: {sandbox.stop_reason}" if sandbox.stop_reason else sandbox.state
    return format_html(
        '<span class="state state-{}" title="{}">{}</span>', sandbox.state, sandbox.detail, words
    )

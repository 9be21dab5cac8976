from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString


class ReadOnlyAdmin(admin.ModelAdmin):
    """Rows that the platform writes: they can be looked at."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False


class BadgeMedia:
    """What a page with state badges needs: class Media(BadgeMedia)."""

    css = {"all": ("sandboxes/badges.css",)}


def state_badge(state: str, reason: str = "", detail: str = "") -> SafeString:
    """Return the state as a coloured word, the reason beside it, the detail as its title."""
    words = f"{state}: {reason}" if reason else state
    return format_html('<span class="state state-{}" title="{}">{}</span>', state, detail, words)

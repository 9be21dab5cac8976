from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest

from sandboxes import registry
from sandboxes.models import SandboxType


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
        return ("name",) if obj and obj.built_in else ()

    def has_delete_permission(self, request: HttpRequest, obj: SandboxType | None = None) -> bool:
        if obj and obj.built_in:
            return False
        return super().has_delete_permission(request, obj)

"""The operations console: one file a model. What the platform writes is read-only here."""

from django.contrib import admin

from sandboxes.admin import (
    api_token,
    event,
    image_build,
    installation,
    port_lease,
    sandbox,
    sandbox_type,
    session,
)

__all__ = [
    "api_token",
    "event",
    "image_build",
    "installation",
    "port_lease",
    "sandbox",
    "sandbox_type",
    "session",
]

admin.site.site_header = admin.site.site_title = "Sandbox platform"
admin.site.index_title = "Operations"
admin.site.site_url = "/api/schema/swagger-ui/"

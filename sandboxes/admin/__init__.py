"""The operations console: one file a model. What the platform writes is read-only here."""

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

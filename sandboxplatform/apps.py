from __future__ import annotations

from django.apps import AppConfig


class SandboxPlatformConfig(AppConfig):
    """The wiring: settings, addresses, the server's processes."""

    name = "sandboxplatform"

    def ready(self) -> None:
        from sandboxplatform import checks  # noqa: F401  registers the system checks

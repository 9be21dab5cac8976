from __future__ import annotations

from django.apps import AppConfig


class SandboxesConfig(AppConfig):
    """Everything about one sandbox: its type, its life, its tools, its page in the admin."""

    name = "sandboxes"

    def ready(self) -> None:
        from sandboxes import registry  # noqa: F401  registers the built-in types

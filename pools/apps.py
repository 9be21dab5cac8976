from __future__ import annotations

from django.apps import AppConfig
from django.db import transaction
from django.db.models.signals import post_save


class PoolsConfig(AppConfig):
    """How many warm sandboxes of each type are held ready."""

    name = "pools"

    def ready(self) -> None:
        from pools.models import Pool
        from sandboxes.models import SandboxType

        for model in (Pool, SandboxType):
            post_save.connect(_wake_keeper, sender=model)


def _wake_keeper(**_: object) -> None:
    """Let the keeper act on a changed wish at once."""
    from sandboxes import wakeup

    transaction.on_commit(wakeup.ring)

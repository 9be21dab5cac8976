from __future__ import annotations

from django.apps import AppConfig


class PoolsConfig(AppConfig):
    """How many warm sandboxes of each type are held ready."""

    name = "pools"

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone


class Session(models.Model):
    """A caller's context (session_ctx_id on the wire): it groups that caller's sandboxes."""

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    key = models.CharField(max_length=255)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    last_active_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["owner", "key"], name="session_key_once_per_owner"),
            models.CheckConstraint(condition=~models.Q(key=""), name="session_key_not_empty"),
        ]

    def __str__(self) -> str:
        return self.key

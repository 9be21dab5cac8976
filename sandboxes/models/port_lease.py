from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone


class PortLease(models.Model):
    """The right of one sandbox to one port of this host."""

    port = models.PositiveIntegerField()
    sandbox = models.OneToOneField(
        "sandboxes.Sandbox", on_delete=models.CASCADE, related_name="port_lease"
    )
    leased_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["port"], name="port_leased_once"),
            models.CheckConstraint(
                condition=Q(port__gte=1024) & Q(port__lte=65535), name="port_in_range"
            ),
        ]

    def __str__(self) -> str:
        return str(self.port)

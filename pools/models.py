"""How many warm sandboxes are held ready."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q


class Pool(models.Model):
    """What is wished for one type: how many of its sandboxes are held warm, and how many at most."""

    sandbox_type = models.OneToOneField(
        "sandboxes.SandboxType", on_delete=models.CASCADE, related_name="pool"
    )
    target = models.PositiveIntegerField(default=1, help_text="Warm sandboxes to hold ready.")
    ceiling = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="Sandboxes of the type at most, lent ones included. Empty: no limit.",
    )
    paused = models.BooleanField(
        default=False, help_text="Make no more warm sandboxes; those there may still be lent."
    )

    class Meta:
        ordering = ["sandbox_type__name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(ceiling__isnull=True) | Q(target__lte=F("ceiling")),
                name="pool_target_within_ceiling",
                violation_error_message="The target must not be above the ceiling.",
            )
        ]

    def __str__(self) -> str:
        return f"Pool of {self.sandbox_type}"

"""How many warm sandboxes are held ready."""

from __future__ import annotations

from django.db import models
from django.db.models import Count, F, Q

from sandboxes.states import OWNED, State

COUNTS: dict[str, dict[str, object]] = {
    "warm": {"state": State.WARM},
    "frozen": {"state": State.WARM, "frozen": True},
    "coming": {"state__in": (State.PENDING, State.STARTING), "owner": None},
    "lent": {"state__in": sorted(OWNED)},
    "leaving": {"state": State.STOPPING},
}
"""What the sandboxes of a pool's type are doing, and by what of their rows that is told."""


class PoolQuerySet(models.QuerySet):
    def with_figures(self) -> PoolQuerySet:
        """Add how many sandboxes of its type are doing what, one attribute each of COUNTS."""
        of_type = "sandbox_type__sandbox"
        return self.select_related("sandbox_type").annotate(
            **{
                name: Count(
                    of_type,
                    filter=Q(**{f"{of_type}__{field}": value for field, value in told_by.items()}),
                )
                for name, told_by in COUNTS.items()
            }
        )


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

    freeze = models.BooleanField(
        default=False,
        help_text="Pause the warm ones, where the deployer can: they cost no CPU, and resume "
        "when they are lent.",
    )
    configured_target = models.PositiveIntegerField(null=True, editable=False)
    """The POOL_SIZE that was applied last; another one in the settings is applied once."""

    failures = models.PositiveIntegerField(default=0, editable=False)
    """Starts that failed since the last one that did not."""

    retry_at = models.DateTimeField(null=True, editable=False)
    """Until when no more are started, after failures."""

    last_error = models.TextField(blank=True, editable=False)

    objects = PoolQuerySet.as_manager()

    class Meta:
        ordering = ["sandbox_type__name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(ceiling__isnull=True) | Q(target__lte=F("ceiling")),
                name="pool_target_within_ceiling",
                violation_error_message="The target must not be above the ceiling.",
            ),
            models.CheckConstraint(
                condition=Q(failures=0) | ~Q(last_error=""), name="pool_failure_has_error"
            ),
        ]

    def __str__(self) -> str:
        return f"Pool of {self.sandbox_type}"

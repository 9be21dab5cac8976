"""What must always hold of a sandbox's row, and by what it is found."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from sandboxes.states import ENDED, OWNED, UNFINISHED, State

INDEXES = [
    # Not one for each state with a condition: SQLite uses such an index only for values
    # that it sees when it reads the question, and Django gives it parameters.
    models.Index(fields=["state", "sandbox_type", "recipe"], name="sandbox_state_idx"),
    models.Index(
        fields=["owner", "state"],
        condition=~Q(state=State.STOPPED),
        name="sandbox_live_idx",
    ),
    models.Index(
        fields=["expires_at"],
        condition=Q(expires_at__isnull=False),
        name="sandbox_expiring_idx",
    ),
]

CONSTRAINTS = [
    models.CheckConstraint(condition=Q(state__in=State.values), name="sandbox_state_known"),
    models.CheckConstraint(
        condition=~Q(state__in=sorted(OWNED)) | Q(owner__isnull=False),
        name="sandbox_running_has_owner",
    ),
    models.CheckConstraint(
        condition=~Q(state=State.WARM) | Q(owner__isnull=True),
        name="sandbox_warm_has_no_owner",
    ),
    models.CheckConstraint(
        condition=~Q(state__in=[State.WARM, State.RUNNING]) | ~Q(url=""),
        name="sandbox_ready_has_url",
    ),
    models.CheckConstraint(
        condition=(
            Q(state__in=sorted(ENDED)) & ~Q(stop_reason="")
            | ~Q(state__in=sorted(ENDED)) & Q(stop_reason="")
        ),
        name="sandbox_stop_has_reason",
    ),
    models.CheckConstraint(
        condition=(
            Q(state=State.STOPPED, stopped_at__isnull=False)
            | ~Q(state=State.STOPPED) & Q(stopped_at__isnull=True)
        ),
        name="sandbox_stopped_has_time",
    ),
    models.CheckConstraint(
        condition=(
            Q(state__in=sorted(UNFINISHED), worker_until__isnull=False)
            | ~Q(state__in=sorted(UNFINISHED)) & Q(worker_until__isnull=True)
        ),
        name="sandbox_unfinished_has_lease",
    ),
    models.CheckConstraint(
        condition=Q(frozen=False) | Q(state=State.WARM), name="sandbox_frozen_is_warm"
    ),
    models.CheckConstraint(
        condition=Q(replaced_by__isnull=True) | Q(state__in=sorted(ENDED)),
        name="sandbox_replaced_has_ended",
    ),
    models.UniqueConstraint(
        fields=["restores"],
        condition=~Q(state__in=sorted(ENDED)),
        name="sandbox_restored_once",
    ),
]

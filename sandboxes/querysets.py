"""The questions that are asked of the sandboxes' table, each one method."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol

from django.db import models
from django.utils import timezone

from sandboxes.states import LIVE, UNFINISHED, State


class Owner(Protocol):
    """A user, or a caller who acts for one."""

    pk: int
    is_superuser: bool


class SandboxQuerySet(models.QuerySet):
    """Sandboxes; every method narrows the set it is called on."""

    def live(self) -> SandboxQuerySet:
        return self.filter(state__in=LIVE)

    def owned_by(self, caller: Owner) -> SandboxQuerySet:
        """Narrow to what a caller may see and end: their own, or all for a superuser."""
        if caller.is_superuser:
            return self
        return self.filter(owner_id=caller.pk)

    def abandoned(self, now: datetime | None = None) -> SandboxQuerySet:
        """Those whose worker died on the way: nobody else will finish the step it was at."""
        return self.filter(
            state__in=UNFINISHED,
            worker_until__lt=now or timezone.now(),
        )

    def forgotten(self, age: timedelta) -> SandboxQuerySet:
        """Ended ones whose record has been kept long enough."""
        return self.filter(state=State.STOPPED, stopped_at__lt=timezone.now() - age)

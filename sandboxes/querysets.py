"""The questions that are asked of the sandboxes' table, each one method."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from django.conf import settings
from django.db import models
from django.db.models import F, Q, Value
from django.db.models.functions import Coalesce
from django.utils import timezone

from sandboxes import workers
from sandboxes.states import ENDED, LIVE, UNFINISHED, State, StopReason

if TYPE_CHECKING:
    from sandboxes.models import Sandbox, SandboxType


USED_AT = Coalesce("session__last_active_at", "last_used_at", "claimed_at")
"""When somebody last called it, as far as that has been written down."""

ANSWER_GRACE = timedelta(seconds=60)
"""For whoever has the answer to use what was lent, though its worker has died."""

LONGEST_ANSWER = timedelta(minutes=10)
"""What a process may take longer than CREATE_TIMEOUT to answer and to write that down."""


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
        return self if caller.is_superuser else self.lent_to(caller)

    def lent_to(self, caller: Owner) -> SandboxQuerySet:
        """Narrow to a caller's own, a superuser's too."""
        return self.filter(owner_id=caller.pk)

    def warm(self, kind: SandboxType) -> SandboxQuerySet:
        """Those of a type that are held ready, lent to nobody."""
        return self.filter(sandbox_type=kind, state=State.WARM)

    def coming(self, kind: SandboxType) -> SandboxQuerySet:
        """Those of a type that are being made for its pool."""
        return self.filter(sandbox_type=kind, state__in=(State.PENDING, State.STARTING), owner=None)

    def claimable(self, kind: SandboxType) -> SandboxQuerySet:
        """
        The warm ones of a type in the order in which they should be lent, locked.

        Rows that another process is lending at this moment are left out.
        """
        needed = (
            "name", "state", "url", "deployer", "image", "workspace", "frozen", "can_bind", "timeline",
            "timeout_seconds", "stop_reason", "first_used_at", "replaced_by", "sandbox_type",
        )  # fmt: skip
        lockable = self.warm(kind).order_by("frozen", "pk").select_for_update(skip_locked=True)
        # Half of what a claim costs is rows in full; the rest of a row is fetched if asked for.
        return lockable.only(*needed)

    def abandoned(self, now: datetime | None = None) -> list[Sandbox]:
        """
        Those whose worker died on the way: nobody else will finish the step it was at.

        Locked, and without those that another process is looking at. A process of this machine
        that is gone is believed at once, any other when its lease is over.
        """
        now = now or timezone.now()
        unfinished = self.filter(state__in=UNFINISHED).select_for_update(skip_locked=True)
        return [
            sandbox
            for sandbox in unfinished
            if sandbox.worker_until < now or workers.is_dead(sandbox.worker)
        ]

    def unanswered(self, now: datetime | None = None) -> list[Sandbox]:
        """
        Those lent by a worker that died before its answer was out, and not used since.

        A process of this machine is asked for; of any other it is believed when no answer can
        take that long.
        """
        now = now or timezone.now()
        longest = timedelta(seconds=settings.PLATFORM.CREATE_TIMEOUT) + LONGEST_ANSWER
        unused = self.annotate(used_at=USED_AT).filter(
            # Not in the middle of a first call either.
            state=State.RUNNING,
            first_used_at=None,
            used_at__lt=now - ANSWER_GRACE,
        )
        return [
            sandbox
            for sandbox in unused.exclude(worker="")
            if workers.is_dead(sandbox.worker)
            or (not workers.can_be_seen(sandbox.worker) and sandbox.used_at < now - longest)
        ]

    def expired(self, now: datetime | None = None) -> SandboxQuerySet:
        """Live ones whose lifetime is over."""
        return self.live().filter(expires_at__lt=now or timezone.now())

    def idle(self, limit: timedelta | None, *, grace: timedelta) -> SandboxQuerySet:
        """
        Lent ones without a call for longer than they may be.

        That is their own idle_limit or, for those of a session, limit; None is no limit. grace
        is by how much the noted time of the last call may lag behind.
        """
        now = timezone.now()
        idle = Q(idle_limit__isnull=False, used_at__lt=Value(now - grace) - F("idle_limit"))
        if limit is not None:
            idle |= Q(
                idle_limit__isnull=True,
                session__isnull=False,
                used_at__lt=now - grace - limit,
            )
        # Without a workspace of this host its files would go with it.
        kept = ~Q(workspace="") | Q(session__isnull=True)
        return self.filter(state=State.RUNNING).annotate(used_at=USED_AT).filter(idle, kept)

    def restorable(self) -> SandboxQuerySet:
        """Ended ones that the next touch continues: Sandbox.can_be_restored as a question."""
        return self.filter(
            Q(stop_reason=StopReason.IDLE, session__isnull=False)
            | Q(stop_reason=StopReason.LOST, claimed_at__isnull=False, first_used_at__isnull=True)
            & ~Q(was_given_files=True, workspace=""),
            state__in=ENDED,
            replaced_by=None,
            owner__isnull=False,
        )

    def of_sessions(self) -> SandboxQuerySet:
        """Those that a session's caller can still call, restoring them if need be."""
        ended = self.model.objects.restorable().filter(stop_reason=StopReason.IDLE)
        return self.filter(Q(state__in=LIVE) | Q(pk__in=ended.values("pk")))

    def forgotten(self, age: timedelta) -> SandboxQuerySet:
        """Ended ones whose record has been kept long enough and leads nowhere any more."""
        kept = self.model.objects.restorable().values("pk")
        served = ~Q(replaced_by__state=State.STOPPED) | Q(replaced_by__in=kept)
        return (
            self.filter(state=State.STOPPED, stopped_at__lt=timezone.now() - age)
            .exclude(served, replaced_by__isnull=False)
            .exclude(pk__in=kept)
        )

    def unclaimed_files(self, age: timedelta | None) -> SandboxQuerySet:
        """
        Restorable ones whose files may go.

        Nobody touched them for so long (None: no limit), or their lifetime is over.
        """
        now = timezone.now()
        over = Q(expires_at__lt=now)
        if age is not None:
            over |= Q(stopped_at__lt=now - age)
        return self.restorable().filter(over, state=State.STOPPED)

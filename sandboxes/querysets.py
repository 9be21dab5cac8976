"""The questions that are asked of the sandboxes' table, each one method."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Protocol

from django.conf import settings
from django.db import connection, models
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


CLAIMED = (
    "id", "name", "state", "url", "deployer", "image", "workspace", "frozen", "can_bind", "timeline",
    "timeout_seconds", "stop_reason", "first_used_at", "replaced_by", "sandbox_type",
)  # fmt: skip
"""What a claim needs of a row; the rest is fetched if asked for."""


@cache
def _claimable_sql(model: type[models.Model], must_bind: bool, locks: bool) -> str:
    """
    Return the question of claimable().

    Written out, because it is asked by every claim, and the ORM takes several times as long to
    write it down as a database to answer it.
    """
    meta = model._meta
    columns = ", ".join(meta.get_field(name).column for name in CLAIMED)
    return (
        f"SELECT {columns} FROM {meta.db_table} "  # noqa: S608  names of our own
        f"WHERE state = %s AND sandbox_type_id = %s "
        f"{'AND can_bind ' if must_bind else ''}"
        f"ORDER BY CASE WHEN recipe = %s THEN 0 ELSE 1 END, frozen, id LIMIT %s"
        f"{' FOR UPDATE SKIP LOCKED' if locks else ''}"
    )


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

    def claimable(
        self, kind: SandboxType, *, recipe: str, must_bind: bool, count: int
    ) -> list[Sandbox]:
        """
        Lock so many warm ones of a type, or fewer, those first that should be lent first.

        Those made by the recipe come before others, then those that are not frozen. Rows that
        another process is lending at this moment are left out.
        """
        wait_for_none = connection.features.has_select_for_update_skip_locked
        question = _claimable_sql(self.model, must_bind, wait_for_none)
        return list(self.model.objects.raw(question, [State.WARM, kind.pk, recipe, count]))

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

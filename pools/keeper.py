"""
One pass that brings every pool to what is wished for; several at once do no harm.

It decides under a lock on the pool's row: how many are warm, how many are coming, how many
are missing. The missing are written as rows in the same transaction and started behind it, so
that no second keeper starts them again.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from deployers.errors import DeployerError
from pools import freezing
from pools.models import Pool
from sandboxes import (
    behind,
    deployment,
    ending,
    lifecycle,
    specs,
    steps,
    wakeup,
)
from sandboxes.actions.creating import draft
from sandboxes.actions.inserting import room_left
from sandboxes.models import Event, Sandbox, SandboxType
from sandboxes.recipe import recipe_of
from sandboxes.states import State, StateConflict, StopReason

logger = logging.getLogger(__name__)

ACTOR = "keeper"
MOST_COMING = 8 * (os.cpu_count() or 1)
"""How many sandboxes of one pool are on their way at once."""

FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=1), timedelta(seconds=60)


@dataclass
class Report:
    """What one pass did, as names of sandboxes and pools."""

    started: list[str] = field(default_factory=list)
    outdated: list[str] = field(default_factory=list)
    surplus: list[str] = field(default_factory=list)
    frozen: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.started or self.outdated or self.surplus or self.frozen or self.errors)

    def __str__(self) -> str:
        counts = (f"{name} {len(names)}" for name, names in vars(self).items())
        return ", ".join(counts)


@dataclass(frozen=True, slots=True)
class Plan:
    """What one pool needs now."""

    start: list[Sandbox]
    end: list[tuple[Sandbox, StopReason]]


class Keeper:
    """Passes over all pools, with the threads that start what they find missing."""

    def __init__(self) -> None:
        # lifecycle.start bounds what runs at once; these only have to be enough for it.
        self._threads = ThreadPoolExecutor(4 * (os.cpu_count() or 1), thread_name_prefix="keeper")
        self._futures: set[Future[None]] = set()

    def keep(self) -> Report:
        """Run one pass; what it starts goes on behind it."""
        report = Report()
        for pool in Pool.objects.select_related("sandbox_type").filter(sandbox_type__enabled=True):
            try:
                plan = self._plan(pool)
            except DeployerError as error:
                report.errors.append(f"{pool.sandbox_type}: {error}")
                _note_failure(pool.pk, error)
                continue
            self._carry_out(pool, plan, report)
        for name in _end_what_no_pool_wants():
            report.surplus.append(name)
        return report

    def wait(self) -> None:
        """Wait for everything that passes have started."""
        wait(self._futures)

    def close(self) -> None:
        """Let what is being started finish, and begin no more."""
        self._threads.shutdown(cancel_futures=True)

    def _plan(self, seen: Pool) -> Plan:
        sample = draft(seen.sandbox_type)
        image_id = self._image_id(sample)
        may_start = _may_start(seen) and _is_lacking(seen, sample, image_id)
        if may_start:
            # Before the transaction: a deployer may ask its engine what it can do.
            specs.validate(sample)
        begun: list[Sandbox] = []
        with steps.at(begun), transaction.atomic():
            pool = (
                Pool.objects.select_for_update(skip_locked=True, of=("self",))
                .select_related("sandbox_type")
                .filter(pk=seen.pk)
                .first()
            )
            if pool is None:
                return Plan([], [])  # another keeper is at it, or somebody deleted it
            return _plan(pool, image_id, begun, may_start=may_start)

    @staticmethod
    def _image_id(sample: Sandbox) -> str:
        """Ask the engine where an image points now; "" where there are no images."""
        deployer = deployment.current()
        if not deployer.supports_images:
            return ""
        return deployer.find_image(sample.image) or ""

    def _carry_out(self, pool: Pool, plan: Plan, report: Report) -> None:
        # First: their rows are written, and nobody else starts them.
        for sandbox in plan.start:
            report.started.append(sandbox.name)
            self._submit(_start, sandbox, pool.pk)
        for sandbox, reason in plan.end:
            names = report.outdated if reason == StopReason.OUTDATED else report.surplus
            if ending.stop_soon(sandbox, reason=reason, actor=ACTOR, unless_moved=True):
                names.append(sandbox.name)
        report.frozen += freezing.apply(pool)

    def _submit(self, work: Callable[..., object], *args: object) -> None:
        future = self._threads.submit(behind.run, work, *args)
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)


def _may_start(pool: Pool) -> bool:
    return not pool.paused and (pool.retry_at is None or pool.retry_at <= timezone.now())


def _is_lacking(pool: Pool, sample: Sandbox, image_id: str) -> bool:
    """Tell whether a pool may lack sandboxes; the count under its lock is the one that counts."""
    current = Sandbox.objects.warm(pool.sandbox_type).filter(recipe=sample.recipe)
    if image_id:
        current = current.filter(image_id=image_id)
    return current.count() < pool.target


def _plan(pool: Pool, image_id: str, begun: list[Sandbox], *, may_start: bool) -> Plan:
    """
    Count and decide; inside of the transaction that holds the pool's row.

    begun takes what is written, while it is. may_start says that a sandbox of it was validated.
    """
    kind = pool.sandbox_type
    recipe = recipe_of(kind, deployer=deployment.current_name())
    # In this order: one that comes up between the two is counted twice, and not overlooked.
    coming = Sandbox.objects.coming(kind).count()
    warm = list(Sandbox.objects.warm(kind).order_by("pk"))
    current = [one for one in warm if one.recipe == recipe and image_id in ("", one.image_id)]
    outdated = [one for one in warm if one not in current]
    may_start = may_start and _may_start(pool)
    missing = max(0, pool.target - len(current) - coming) if may_start else 0
    missing = min(missing, max(0, _most_coming() - coming))

    spare = max(0, len(warm) - pool.target)
    # New ones are warm before old ones go, and old ones go before new ones that are too many.
    going = [(one, StopReason.OUTDATED) for one in outdated[:spare]]
    going += [(one, StopReason.SURPLUS) for one in current[: max(0, len(current) - pool.target)]]

    room = room_left(kind) if missing else 0
    if missing and room < 1 and outdated and not going:
        # A ceiling or cap leaves no room for both; the next pass fills the place.
        going = [(outdated[0], StopReason.OUTDATED)]
    for _ in range(int(min(missing, room))):
        begun.append(_insert(kind, image_id))
    return Plan(begun, going)


def _most_coming() -> int:
    """
    Return how many of a pool may be on their way.

    Rows of a large pool must not wait for an engine longer than their leases are long; and those
    that callers are waiting for come first, but for one, or a pool might never fill.
    """
    waited_for = Sandbox.objects.filter(
        state__in=(State.PENDING, State.STARTING), owner__isnull=False
    ).count()
    return max(1, lifecycle.AT_ONCE - waited_for) if waited_for else MOST_COMING


def _insert(kind: SandboxType, image_id: str) -> Sandbox:
    sandbox = draft(kind)
    sandbox.image_id = image_id
    sandbox.save(force_insert=True)
    Event.objects.create(sandbox=sandbox, new_state=State.PENDING, actor=ACTOR)
    return sandbox


def _start(sandbox: Sandbox, pool_pk: int) -> None:
    # Renewed: it may have waited for a thread.
    deadline = time.monotonic() + settings.PLATFORM.CREATE_TIMEOUT
    try:
        lifecycle.start(sandbox, actor=ACTOR, deadline=deadline)
    except lifecycle.StartFailed as failed:
        _note_failure(pool_pk, failed)
    except StateConflict:
        return  # it was ended meanwhile
    else:
        Pool.objects.filter(pk=pool_pk, failures__gt=0).update(
            failures=0, retry_at=None, last_error=""
        )
    finally:
        # There is a place on the way for the next one.
        wakeup.ring()


def _note_failure(pool_pk: int, error: Exception) -> None:
    """Let the pool rest, longer after each failure, and say why."""
    pool, now = Pool.objects.select_related("sandbox_type").get(pk=pool_pk), timezone.now()
    pause = min(FIRST_PAUSE * 2 ** min(pool.failures, 10), LONGEST_PAUSE)
    # Several that began together fail together, and are one failure.
    awake = Pool.objects.filter(Q(retry_at=None) | Q(retry_at__lte=now), pk=pool_pk)
    if not awake.update(failures=F("failures") + 1, retry_at=now + pause, last_error=str(error)):
        return
    logger.warning(
        "The pool of %s rests for %.0f s: %s", pool.sandbox_type, pause.total_seconds(), error
    )


def _end_what_no_pool_wants() -> Iterable[str]:
    """End warm sandboxes of types whose pool is gone or that are enabled no more."""
    left = Sandbox.objects.filter(state=State.WARM).exclude(
        sandbox_type__in=SandboxType.objects.filter(enabled=True, pool__isnull=False)
    )
    for sandbox in left:
        if ending.stop_soon(sandbox, reason=StopReason.SURPLUS, actor=ACTOR, unless_moved=True):
            yield sandbox.name

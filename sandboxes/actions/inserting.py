"""Write the row of a new sandbox, unless there may be no more of them: one step for all."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from sandboxes import connections, ending, steps
from sandboxes.models import Event, Installation, Sandbox, SandboxType, Session
from sandboxes.refusals import CapReached
from sandboxes.room import Result, when_there_is_room
from sandboxes.states import State, StopReason


@steps.step
def insert(sandbox: Sandbox, *, actor: str) -> None:
    """
    Write a PENDING row and its event.

    Raise CapReached where MAX_SANDBOX_INSTANCES or its pool's ceiling is reached, after a little
    patience for what is being removed. Warm ones, lent to nobody, make room for it.
    """
    with_room(sandbox, lambda: _insert(sandbox, actor=actor), actor=actor)


def with_room(sandbox: Sandbox, write: Callable[[], Result], *, actor: str) -> Result:
    """Call write, which checks the room for a sandbox, with the patience of insert()."""
    return when_there_is_room(write, CapReached, lambda: _is_leaving(sandbox, actor=actor))


def _insert(sandbox: Sandbox, *, actor: str) -> None:
    with connections.in_turn(), transaction.atomic():
        check_room(sandbox.sandbox_type)
        sandbox.save(force_insert=True)
        Event.objects.create(sandbox=sandbox, new_state=State.PENDING, actor=actor)


def check_room(kind: SandboxType, *, wanted: int = 1) -> None:
    """
    Raise CapReached unless there may be so many more; inside of the transaction that adds them.

    Everyone who inserts under a cap waits here for the one before.
    """
    if room_left(kind) < wanted:
        cap, ceiling = settings.PLATFORM.MAX_SANDBOX_INSTANCES, kind.ceiling
        raise CapReached(
            f"All {cap} sandboxes that MAX_SANDBOX_INSTANCES allows exist already: release some, "
            f"or raise it."
            if cap and _count() + wanted > cap
            else f"All {ceiling} sandboxes that the pool of {kind} allows exist already: release "
            f"some, or raise its ceiling."
        )


def check_batch(kind: SandboxType, count: int, *, may_be_warm: bool) -> None:
    """
    Raise CapReached where so many cannot be lent at once, even if all that is warm made room.

    What is being removed makes room too, and what its pool is making may be lent. Nothing is
    ended or made for a batch that does not fit.
    """
    cap, ceiling = settings.PLATFORM.MAX_SANDBOX_INSTANCES, kind.ceiling
    limits = [(cap, {}, "MAX_SANDBOX_INSTANCES")] if cap else []
    if ceiling is not None:
        limits.append((ceiling, {"sandbox_type": kind}, f"the ceiling of the pool of {kind}"))
    for limit, narrowed, name in limits:
        passing = (State.STOPPED, State.STOPPING, State.WARM)
        taken = Sandbox.objects.exclude(state__in=passing).filter(**narrowed)
        if may_be_warm:
            taken = taken.exclude(pk__in=Sandbox.objects.coming(kind).values("pk"))
        room = max(0, limit - taken.count())
        if count > room:
            raise CapReached(
                f"There is room for {room} sandboxes and not for {count}: ask for fewer, release "
                f"some, or raise {name}, which is {limit}."
            )


def room_left(kind: SandboxType) -> float:
    """Return how many more sandboxes of a type may be made; math.inf without a cap."""
    cap, ceiling = settings.PLATFORM.MAX_SANDBOX_INSTANCES, kind.ceiling
    room = float("inf")
    if cap or ceiling is not None:
        Installation.objects.select_for_update().get()
    if cap:
        room = cap - _count()
    if ceiling is not None:
        room = min(room, ceiling - _count(sandbox_type=kind))
    return room


def _count(**narrowed: object) -> int:
    return Sandbox.objects.exclude(state=State.STOPPED).filter(**narrowed).count()


def _is_leaving(sandbox: Sandbox, *, actor: str) -> bool:
    """Tell whether some sandbox is on its way out; send a warm one there if none is."""
    if Sandbox.objects.filter(state=State.STOPPING).exists():
        return True
    warm = Sandbox.objects.filter(state=State.WARM)
    ceiling = sandbox.sandbox_type.ceiling
    if ceiling is not None and _count(sandbox_type=sandbox.sandbox_type) >= ceiling:
        warm = warm.filter(sandbox_type=sandbox.sandbox_type)
    spare = warm.order_by("pk").first()
    if spare is None:
        return False
    ending.stop_soon(
        spare,
        reason=StopReason.SURPLUS,
        actor=actor,
        detail="a caller needed its place",
        unless_moved=True,
    )
    return True


def touch_session(owner_id: int, key: str) -> Session | None:
    """Return the caller's session of that key, made if need be and active now; None for ""."""
    if not key:
        return None
    session, _ = Session.objects.update_or_create(
        owner_id=owner_id, key=key, defaults={"last_active_at": timezone.now()}
    )
    return session


def end_of_life(kind: SandboxType, lifetime: timedelta | None) -> datetime | None:
    """Return when a sandbox that is lent now is to end: the shorter of both limits, or never."""
    limits = [lifetime] if lifetime is not None else []
    if kind.lifetime_seconds:
        limits.append(timedelta(seconds=kind.lifetime_seconds))
    return timezone.now() + min(limits) if limits else None

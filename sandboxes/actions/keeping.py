"""Keep a caller's context alive: touch it, put it to rest when it is idle, bring it back."""

from __future__ import annotations

import logging
import time
from datetime import datetime, timedelta

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Min
from django.utils import timezone

from sandboxes import behind, connections, ending, lifecycle, steps, timeline, workers
from sandboxes.actions.finding import ending_of, explain_silence, find_serving
from sandboxes.actions.inserting import check_room, with_room
from sandboxes.models import Event, Sandbox, Session
from sandboxes.models.sandbox import new_name, session_lease_end
from sandboxes.refusals import Ended, NotRunning, Refusal, Refused, Unknown
from sandboxes.states import ENDED, State, StateConflict, StopReason
from sandboxes.tokens import Caller

logger = logging.getLogger(__name__)

LOOK_EVERY = 0.02


def keep_alive(caller: Caller, identity: str, *, lifetime: timedelta | None = None) -> Sandbox:
    """
    Count as a call to the sandbox now; with lifetime, let it end that long from now instead.

    As a call does, it restores a recycled one; return the one that serves now. A type's own
    lifetime is counted from when it was lent, and is not put off. Raise Unknown, Ended, Refused
    for a lifetime that is longer than that, or where that is over, and what restore() raises.
    """
    sandbox = find_serving(caller, identity)
    if sandbox.can_be_restored:
        sandbox = restore(sandbox.name, actor=caller.actor)
    now = timezone.now()
    changed: dict[str, object] = {"last_used_at": now}
    if lifetime is not None:
        changed["expires_at"] = _extended(sandbox, lifetime, now)
    Sandbox.objects.filter(pk=sandbox.pk).update(**changed)
    if sandbox.session_id:
        Session.objects.filter(pk=sandbox.session_id).update(last_active_at=now)
    sandbox.refresh_from_db()
    return sandbox


def _extended(sandbox: Sandbox, lifetime: timedelta, now: datetime) -> datetime:
    """Return when a sandbox ends that is to live so long from now, if its type lets it."""
    longest = sandbox.sandbox_type.lifetime_seconds
    if not longest:
        return now + lifetime
    limit = timedelta(seconds=longest)
    # Those whose callers it serves were lent before it was.
    first = sandbox.replaces.aggregate(at=Min("claimed_at"))["at"]
    end = min(filter(None, (first, sandbox.claimed_at)), default=now) + limit
    if lifetime > limit or end <= now:
        over = ", and this one's time is over" if end <= now else ""
        raise Refused(
            f"Sandboxes of the type {sandbox.sandbox_type} live at most {longest} s{over}.",
            field="lifetime_seconds",
        )
    return min(now + lifetime, end)


@steps.step
def recycle(sandbox: Sandbox, *, actor: str) -> bool:
    """
    End an idle RUNNING sandbox; return whether this call did.

    With a session its workspace is kept, and the next touch restores it. One that another
    process has moved since it was read is left alone.
    """
    reason = StopReason.IDLE
    detail = "no call came for longer than its idle limit"
    try:
        sandbox.move_to(State.STOPPING, actor=actor, stop_reason=reason, detail=detail)
    except StateConflict:
        return False
    behind.submit(ending.finish_stop, sandbox, actor=actor)
    return True


def replacement_for(name: str, *, actor: str) -> str:
    """
    Look at a sandbox whose guest does not answer; return the name of the one that serves instead.

    There is one if it died before it was used. Raise what to tell the caller otherwise.
    """
    refusal = explain_silence(name, actor=actor)
    lost = Sandbox.objects.filter(name=name).first()
    if lost is None or not (lost.replaced_by_id or lost.can_be_restored):
        raise refusal
    return restore(name, actor=actor).name


def restore(name: str, *, actor: str) -> Sandbox:
    """
    Return the RUNNING sandbox that serves the callers of an ended one.

    The first of several calls makes it, with the same workspace and environment, and brings
    back the rest of the session behind its answer; the others wait. Raise Ended where it has
    ended for good, lifecycle.StartFailed (it can be tried again), or NotRunning in the end.
    """
    deadline = time.monotonic() + settings.PLATFORM.CREATE_TIMEOUT
    while True:
        old = (
            Sandbox.objects.select_related("sandbox_type", "replaced_by").filter(name=name).first()
        )
        if old is None:
            raise Unknown(f"There is no sandbox {name!r}.")
        successor = old.replaced_by
        if successor is not None and successor.state not in ENDED:
            return successor
        if successor is not None:
            name = successor.name
            continue
        if old.state not in ENDED:
            return old
        if not old.can_be_restored:
            raise Ended(ending_of(old.name, old.stop_reason, old.detail))
        if heir := _continue(old, actor=actor, deadline=deadline):
            _restore_the_others(old, actor=actor)
            return heir
        # It is still being removed, or another call is restoring it.
        if time.monotonic() > deadline:
            raise NotRunning(f"Sandbox {name} is being restored; try again.")
        connections.let_go()
        time.sleep(LOOK_EVERY)


def _continue(old: Sandbox, *, actor: str, deadline: float) -> Sandbox | None:
    """
    Bring up the one that is to continue an ended one, and return it.

    None where the old one is still being removed, where another call does it, and where what was
    begun was ended meanwhile. Raise lifecycle.StartFailed or CapReached.
    """
    if old.state != State.STOPPED or not old.can_be_restored:
        return None
    # Asked for before, because to reserve is to write.
    if old.restorations.exclude(state__in=ENDED).exists():
        return None
    heir = _reserve(old, actor=actor)
    if heir is None:
        return None
    try:
        lifecycle.start(heir, actor=actor, deadline=deadline)
    except StateConflict:
        return None
    logger.info("Restored %s as %s", old.name, heir.name)
    return heir


def _reserve(old: Sandbox, *, actor: str) -> Sandbox | None:
    """Write the row of the one that is to continue an ended one; None if there is one already."""
    heir = Sandbox(
        name=new_name(),
        sandbox_type=old.sandbox_type,
        owner_id=old.owner_id,
        session_id=old.session_id,
        deployer=old.deployer,
        image=old.image,
        workspace=old.workspace,
        # Until it runs, its end must not take the files along.
        owns_workspace=False,
        was_given_files=old.was_given_files,
        environment=old.environment,
        labels=old.labels,
        meta=old.meta,
        timeout_seconds=old.timeout_seconds,
        idle_limit=old.idle_limit,
        expires_at=old.expires_at,
        claimed_at=timezone.now(),
        restores=old,
        worker=workers.current(),
        worker_until=session_lease_end(),
    )
    timeline.say_cold(heir.timeline, f"it restores {old.name}")
    try:
        with steps.at([heir]):
            written = with_room(heir, lambda: _insert_heir(heir, actor=actor), actor=actor)
    except IntegrityError:
        return None
    return heir if written else None


def _insert_heir(heir: Sandbox, *, actor: str) -> bool:
    with transaction.atomic():
        old = Sandbox.objects.select_for_update().get(pk=heir.restores_id)
        # Before the room is looked at, which the first of several calls may have taken.
        coming = old.restorations.exclude(state__in=ENDED)
        if not old.can_be_restored or coming.exists():
            return False
        check_room(heir.sandbox_type)
        heir.save(force_insert=True)
        Event.objects.create(sandbox=heir, new_state=State.PENDING, actor=actor)
        if heir.session_id:
            Session.objects.filter(pk=heir.session_id).update(last_active_at=timezone.now())
    return True


def _restore_the_others(old: Sandbox, *, actor: str) -> None:
    """Bring back what else the session had; one that fails is tried again by its own touch."""
    if old.session_id is None:
        return
    others = Sandbox.objects.restorable().filter(session_id=old.session_id).exclude(pk=old.pk)
    for name in others.values_list("name", flat=True):
        behind.submit_start(_restore_quietly, name, actor)


def _restore_quietly(name: str, actor: str) -> None:
    old = Sandbox.objects.filter(name=name).first()
    if old is None:
        return
    deadline = time.monotonic() + settings.PLATFORM.CREATE_TIMEOUT
    try:
        _continue(old, actor=actor, deadline=deadline)
    except (lifecycle.StartFailed, Refusal) as failed:
        logger.warning("%s was not restored yet: %s", name, failed)

"""
Lend warm sandboxes: rows chosen and written in one transaction, then one look at each guest.

That is a call where it has to be given something, and a knock where it has not.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import transaction
from django.utils import timezone

from deployers.errors import DeployerError
from sandboxes import binding, connections, deployment, ending, steps, timeline, wakeup, workers
from sandboxes.actions.inserting import end_of_life, touch_session
from sandboxes.actions.together import results, together
from sandboxes.actions.wishes import Wish
from sandboxes.models import Sandbox, SandboxType
from sandboxes.recipe import recipe_of
from sandboxes.refusals import Refused
from sandboxes.states import State, StopReason
from sandboxes.timeline import Stopwatch
from sandboxes.tokens import Caller

logger = logging.getLogger(__name__)

PATIENCE = 15.0
"""Seconds for which a sandbox that the pool has begun to make is waited for."""

LOOK_EVERY = 0.05
"""Not more often: several wait at once, beside starts that need the processor."""


def claim(
    caller: Caller, kind: SandboxType, wish: Wish, count: int, *, deadline: float
) -> list[Sandbox]:
    """
    Lend up to so many warm sandboxes, each bound to the wish and seen to listen.

    One that turns out to be dead is given up, and another takes its place until the deadline, a
    time.monotonic() value. Raise Refused for what a guest will not be given; then none is lent.
    """
    taken: list[Sandbox] = []
    lent: list[Sandbox] = []
    try:
        while len(lent) < count and time.monotonic() < deadline:
            chosen = _choose(caller, kind, wish, count - len(lent))
            if not chosen:
                break
            taken += [sandbox for sandbox, _ in chosen]
            wakeup.ring()
            lent += _make_all_own(chosen, wish, actor=caller.actor, deadline=deadline)
    except BaseException:
        for sandbox in taken:
            if sandbox.state == State.RUNNING:
                ending.stop_soon(sandbox, reason=StopReason.RELEASED, actor=caller.actor)
        raise
    return lent


def claim_next(caller: Caller, kind: SandboxType, wish: Wish, *, deadline: float) -> Sandbox | None:
    """
    Wait for the next warm sandbox and lend it, where one is expected sooner than a new one.

    That is as long as the pool is making one that nobody before waits for: it began earlier
    than a new one could.
    """
    if wish.environment and Sandbox.objects.warm(kind).filter(can_bind=False).exists():
        return None  # those that are coming will not be able to either
    patience = min(deadline, time.monotonic() + PATIENCE)
    with _waiting_for(kind) as place:
        while time.monotonic() < patience:
            begun = Sandbox.objects.coming(kind).filter(state=State.STARTING).count()
            # Looked for after the count: one that is not in it any more may be warm by now.
            if Sandbox.objects.warm(kind).exists() and (
                lent := claim(caller, kind, wish, 1, deadline=deadline)
            ):
                return lent[0]
            if begun <= place():
                return None
            connections.let_go()
            time.sleep(LOOK_EVERY)
    return None


def _choose(
    caller: Caller, kind: SandboxType, wish: Wish, count: int
) -> list[tuple[Sandbox, bool]]:
    """Write so many warm rows, or fewer, to the caller; return each, and whether it was frozen."""
    now, watch_from = timezone.now(), time.monotonic()
    rows: list[Sandbox] = []
    # A commit may have come about though its answer did not.
    with steps.at(rows), connections.in_turn(), transaction.atomic():
        rows += _best(kind, wish, count)
        if not rows:
            return []
        frozen = [row.frozen for row in rows]
        session = touch_session(caller.user_id, wish.session_key)
        for row in rows:
            timeline.say_warm(row.timeline)
            timeline.note(row.timeline, "claimed", time.monotonic() - watch_from)
            row.move_to(
                State.RUNNING,
                actor=caller.actor,
                owner_id=caller.user_id,
                session_id=session.pk if session else None,
                environment=dict(wish.environment),
                was_given_files=bool(wish.files),
                labels=dict(wish.labels),
                meta=dict(wish.meta),
                claimed_at=now,
                last_used_at=now,
                expires_at=end_of_life(kind, wish.lifetime),
                idle_limit=wish.idle_limit_for(kind),
                timeline=row.timeline,
                worker=workers.current(),
            )
    return list(zip(rows, frozen, strict=True))


def _best(kind: SandboxType, wish: Wish, count: int) -> list[Sandbox]:
    """
    Lock so many warm rows that the wish can be bound to, or fewer.

    Those made as the type is now come first; one of the type as it was before is better than
    none while the pool rolls over.
    """
    rows = Sandbox.objects.claimable(
        kind,
        recipe=recipe_of(kind, deployer=deployment.current_name()),
        must_bind=bool(wish.environment),
        count=count,
    )
    for row in rows:
        row.sandbox_type = kind
    return rows


def _make_all_own(
    chosen: list[tuple[Sandbox, bool]], wish: Wish, *, actor: str, deadline: float
) -> list[Sandbox]:
    """Give claimed ones what the wish has, all at once; return those that are alive."""

    def make_own(claimed: tuple[Sandbox, bool]) -> bool:
        sandbox, was_frozen = claimed
        return _make_own(sandbox, wish, was_frozen=was_frozen, actor=actor, deadline=deadline)

    own = results(together(make_own, chosen))
    return [sandbox for (sandbox, _), is_own in zip(chosen, own, strict=True) if is_own]


def _make_own(
    sandbox: Sandbox, wish: Wish, *, was_frozen: bool, actor: str, deadline: float
) -> bool:
    """Give a claimed one what the wish has; return False for one that is dead, and given up."""
    watch = Stopwatch(sandbox.timeline)
    patience = min(binding.SECONDS, max(0.0, deadline - time.monotonic()))
    try:
        connections.let_go()
        if was_frozen:
            deployment.of(sandbox).unpause(sandbox.name)
            watch.note("resumed")
        if not (wish.environment or wish.files):
            # A call would cost as much as the rest of the claim, and a guest that listens and
            # does not answer is replaced by its first use.
            binding.knock(sandbox.url)
            return True
        guest = (sandbox.url, sandbox.guest_secret)
        if sandbox.can_bind:
            binding.bind(*guest, wish.environment, wish.files, seconds=patience)
        else:
            binding.put_files(*guest, wish.files, seconds=patience)
    except binding.BindingRefused as refused:
        _give_up(sandbox, StopReason.RELEASED, str(refused), actor=actor)
        raise Refused(str(refused), field="files" if wish.files else "environment") from refused
    except (binding.GuestGone, DeployerError) as error:
        logger.warning("The warm sandbox %s is dead: %s", sandbox.name, error)
        _give_up(sandbox, StopReason.LOST, f"found dead when it was lent: {error}", actor=actor)
        return False
    watch.note("bound")
    return True


def _give_up(sandbox: Sandbox, reason: StopReason, detail: str, *, actor: str) -> None:
    # Its caller never learns its name, so there is nobody to restore it for.
    unclaimed = {"claimed_at": None, "session_id": None}
    ending.stop_soon(sandbox, reason=reason, actor=actor, detail=detail, **unclaimed)


_waiting: Counter[int] = Counter()
_waiting_lock = threading.Lock()


@contextmanager
def _waiting_for(kind: SandboxType) -> Iterator[object]:
    """Queue up in this process; yields a question for how many were there before."""
    with _waiting_lock:
        before = _waiting[kind.pk]
        _waiting[kind.pk] += 1
    try:
        yield lambda: min(before, _waiting[kind.pk] - 1)
    finally:
        with _waiting_lock:
            _waiting[kind.pk] -= 1

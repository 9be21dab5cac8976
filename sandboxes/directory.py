"""
Where a caller's sandbox is reached: one cached look-up for every tool call and proxy request.

A hit costs no query. Without Redis each worker remembers for FRESH_SECONDS; with Redis a miss
asks the shared cache before the database, and a state change marks the shared entry, so a
released sandbox is refused everywhere after at most FRESH_SECONDS (SHARED_SECONDS if Redis was
away, or slow, at that moment).
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import asdict, dataclass

from django.conf import settings
from django.core.cache import cache

from sandboxes import actions, log_context
from sandboxes.models import Sandbox
from sandboxes.models.sandbox import full_name
from sandboxes.refusals import Ended, NotRunning, Unknown
from sandboxes.signals import sandbox_moved
from sandboxes.states import ENDED, State
from sandboxes.threads import engine_threads, in_thread
from sandboxes.tokens import Caller

FRESH_SECONDS = 1.0
SHARED_SECONDS = 5
MOVED = "moved"
"""What a state change leaves in the shared cache: look at the database."""

SIZE = 10_000
SUCCESSORS = 4
"""How many steps an old id is followed; one is usual, two in the moment of a restoring."""


@dataclass(frozen=True, slots=True)
class Place:
    """A sandbox as the hot path needs it."""

    pk: int
    name: str
    key: str
    owner_id: int | None
    session_id: int | None
    state: str
    url: str
    secret: str
    timeout: float
    ending: str
    """Why it has ended, in a sentence; "" while it has not."""

    successor: str
    """The name of the one that serves its callers now; "" where there is none."""

    restorable: bool
    """Has it ended in a way that the next touch undoes?"""

    used: bool
    """Has a call reached it?"""


_places: dict[str, tuple[float, Place]] = {}


def _place_of(sandbox: Sandbox) -> Place:
    ended = sandbox.state in ENDED
    return Place(
        pk=sandbox.pk,
        name=sandbox.name,
        key=sandbox.key,
        owner_id=sandbox.owner_id,
        session_id=sandbox.session_id,
        state=sandbox.state,
        url=sandbox.url,
        secret=sandbox.guest_secret,
        timeout=float(sandbox.timeout_seconds),
        ending=actions.ending_of(sandbox.name, sandbox.stop_reason, sandbox.detail)
        if ended
        else "",
        # One query more for the few that have one, and not a join for all.
        successor=sandbox.replaced_by.name if sandbox.replaced_by_id else "",
        restorable=sandbox.can_be_restored,
        used=sandbox.first_used_at is not None,
    )


def _shared_key(name: str) -> str:
    return f"place:{name}"


def _without_secret(place: Place) -> dict[str, object]:
    return {name: value for name, value in asdict(place).items() if name != "secret"}


def _look_up(name: str) -> Place | None:
    shared = settings.PLATFORM.REDIS_ENABLED
    if shared and (known := cache.get(_shared_key(name))) and known != MOVED:
        return Place(**known, secret=Sandbox(name=name).guest_secret)
    sandbox = Sandbox.objects.filter(name=name).first()
    if sandbox is None:
        return None
    place = _place_of(sandbox)
    if shared and place.state == State.RUNNING:
        # Not over MOVED: the row may have been read before the move that left it.
        cache.add(_shared_key(name), _without_secret(place), SHARED_SECONDS)
    return place


async def find(caller: Caller, identity: str) -> Place:
    """
    Return where the caller's running sandbox is; an ended one leads to the one in its place.

    A touch restores what was recycled. Raise Unknown, Ended or NotRunning, each with a sentence
    for the caller.
    """
    name = full_name(identity)
    for _ in range(SUCCESSORS):
        place = await _look(name)
        if place is None or not (caller.is_superuser or place.owner_id == caller.user_id):
            raise Unknown(f"There is no sandbox {identity!r}.")
        if place.successor:
            name = place.successor
        elif place.restorable:
            name = await restored(place.name, actor=caller.actor)
        else:
            break
    log_context.note_sandbox(place.name)
    if place.ending:
        raise Ended(place.ending)
    if place.state in (State.HALTING, State.HALTED):
        raise NotRunning(f"Sandbox {place.name} is stopped; start it first.")
    if place.state != State.RUNNING:
        raise NotRunning(f"Sandbox {place.name} is {place.state}; try again when it runs.")
    return place


async def _look(name: str) -> Place | None:
    remembered = _places.get(name)
    if remembered and time.monotonic() - remembered[0] < FRESH_SECONDS:
        return remembered[1]
    place = await in_thread(_look_up, name)
    if place is not None:
        _remember(place)
    return place


def remember(sandbox: Sandbox) -> None:
    """Know where a sandbox is that was lent just now: its first call will come soon."""
    _remember(_place_of(sandbox))


def _remember(place: Place) -> None:
    _places[place.name] = (time.monotonic(), place)
    if len(_places) > SIZE:
        with contextlib.suppress(KeyError, RuntimeError):  # another thread was faster
            del _places[next(iter(_places))]


async def restored(name: str, *, actor: str) -> str:
    """Bring back a recycled sandbox; return the name of the one that serves now."""
    heir = await in_thread(actions.restore, name, actor=actor, executor=engine_threads)
    await forget_async(name)
    return heir.name


async def replacement(place: Place) -> Place:
    """
    Return where the callers of a sandbox that does not answer are served instead.

    There is such a place if it died before it was used; raise what to tell the caller else.
    """
    name = await in_thread(
        actions.replacement_for, place.name, actor="server", executor=engine_threads
    )
    await forget_async(place.name)
    found = await _look(name)
    if found is None or found.state != State.RUNNING:
        raise NotRunning(f"Sandbox {name} is being changed by another request; look at it again.")
    return found


def forget(name: str) -> None:
    """Drop what is remembered of a sandbox, here and in the shared cache."""
    _places.pop(name, None)
    if settings.PLATFORM.REDIS_ENABLED:
        _mark_moved(name)


async def forget_async(name: str) -> None:
    """Do what forget() does, without keeping the event loop waiting for Redis."""
    _places.pop(name, None)
    if settings.PLATFORM.REDIS_ENABLED:
        await in_thread(_mark_moved, name)


def _mark_moved(name: str) -> None:
    cache.set(_shared_key(name), MOVED, SHARED_SECONDS)


def clear() -> None:
    """Drop everything this process remembers."""
    _places.clear()


def _on_move(sandbox: Sandbox, **_: object) -> None:
    forget(sandbox.name)


sandbox_moved.connect(_on_move)

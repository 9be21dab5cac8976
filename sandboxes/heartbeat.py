"""
When sandboxes were last called, noted without a query per call.

A call marks its session (or its sandbox, where there is none) in this process; marks are
written together, and of one session at most every few seconds, however many calls come and
however many processes serve them. What is in the middle of a call is marked again and again
until the call ends. The noted time may therefore lag by lag(), which the reaper allows for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta

from django.conf import settings
from django.db import Error
from django.db.models import Q
from django.utils import timezone

from sandboxes.directory import Place, forget_async
from sandboxes.models import Sandbox, Session
from sandboxes.models.writing import write_if
from sandboxes.refusals import TooSlow
from sandboxes.threads import in_thread

logger = logging.getLogger(__name__)

LONGEST_LAG = 5.0
MARKS_KEPT = 10_000

RETRY_SECONDS = 1.0
"""Between two attempts to write marks to a database that is away."""

Mark = tuple[type, int]


def interval() -> float:
    """Return the seconds between two notes of one session: fewer where timeouts are short."""
    timeout = settings.PLATFORM.HEARTBEAT_TIMEOUT
    return min(LONGEST_LAG, max(0.05, timeout / 4)) if timeout else LONGEST_LAG


def lag() -> timedelta:
    """Return how far the noted time of a call may lie behind the call."""
    return timedelta(seconds=interval())


_noted_at: dict[Mark, float] = {}
"""
When each mark was written last, by this process or another, by time.monotonic(); of the whole
process. One that is on its way counts as written.
"""


class Heartbeat:
    """The marks of one event loop."""

    def __init__(self) -> None:
        self._pending: set[Mark] = set()
        self._busy: Counter[Mark] = Counter()
        self._writer: asyncio.Task[None] | None = None

    def touch(self, mark: Mark) -> None:
        now = time.monotonic()
        if now - _noted_at.get(mark, -LONGEST_LAG) < interval():
            return
        if len(_noted_at) > MARKS_KEPT:
            _noted_at.clear()
        _noted_at[mark] = now
        self._pending.add(mark)
        self._begin_writing()

    def _begin_writing(self) -> None:
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())

    @contextlib.contextmanager
    def busy(self, mark: Mark) -> Iterator[None]:
        """Keep a mark fresh until the end of a call."""
        self.touch(mark)
        self._busy[mark] += 1
        # Also where it was marked a moment ago and need not be now: the call may be a long one.
        self._begin_writing()
        try:
            yield
        finally:
            self._busy[mark] -= 1
            if not self._busy[mark]:
                del self._busy[mark]
            self.touch(mark)

    async def _write(self) -> None:
        """Write what is pending; stay while calls are going on, and mark them again."""
        failed = False
        while True:
            marks, self._pending = self._pending, set()
            if marks:
                try:
                    ages = await in_thread(_note, marks)
                except Error as error:
                    if not failed:
                        logger.warning("Heartbeats cannot be written, and wait: %s", error)
                    failed = True
                    self._pending |= marks
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                failed = False
                now = time.monotonic()
                _noted_at.update({mark: now - age for mark, age in ages.items()})
            if self._pending:
                continue
            if not self._busy:
                return
            # In slices, so that marks which come meanwhile are not kept waiting.
            await asyncio.sleep(min(interval(), 0.25))
            now = time.monotonic()
            for mark in self._busy:
                if now - _noted_at.get(mark, 0.0) >= interval():
                    _noted_at[mark] = now
                    self._pending.add(mark)


def _note(marks: set[Mark]) -> dict[Mark, float]:
    """
    Write down these marks, but for those that another process has written within the interval.

    Return how many seconds ago each was written, which is 0 for what this call wrote.
    """
    ages: dict[Mark, float] = {}
    for model, field in ((Session, "last_active_at"), (Sandbox, "last_used_at")):
        keys = [pk for kind, pk in marks if kind is model]
        if not keys:
            continue
        now = timezone.now()
        rows = model.objects.filter(pk__in=keys)
        due = Q(**{field: None}) | Q(**{f"{field}__lte": now - lag()})
        ages |= {(model, pk): 0.0 for pk in keys}
        if rows.filter(due).update(**{field: now}) < len(keys):
            others = rows.exclude(**{field: now}).values_list("pk", field)
            ages |= {(model, pk): max(0.0, (now - at).total_seconds()) for pk, at in others if at}
    return ages


_by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Heartbeat] = (
    weakref.WeakKeyDictionary()
)


def _heartbeat() -> Heartbeat:
    loop = asyncio.get_running_loop()
    if loop not in _by_loop:
        _by_loop[loop] = Heartbeat()
    return _by_loop[loop]


def _mark_of(session_id: int | None, pk: int) -> Mark:
    return (Session, session_id) if session_id else (Sandbox, pk)


def note_lending(sandbox: Sandbox) -> None:
    """Know that a sandbox was lent just now, which its row says: its first call adds nothing."""
    _noted_at[_mark_of(sandbox.session_id, sandbox.pk)] = time.monotonic()


@asynccontextmanager
async def during(place: Place) -> AsyncIterator[None]:
    """Count everything inside as one call to the sandbox."""
    with _heartbeat().busy(_mark_of(place.session_id, place.pk)):
        yield


_used: set[str] = set()
"""Names whose first use this process has written."""


@asynccontextmanager
async def using(place: Place) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """
    Count everything inside as one call that uses the sandbox, also where it breaks off.

    Yield what notes the use at once: a stream is a use from its first moment, and may take hours.
    """
    begun = time.monotonic()

    async def note() -> None:
        await note_use(place, time.monotonic() - begun)

    try:
        async with during(place):
            yield note
    except (asyncio.CancelledError, ConnectionError, TooSlow):
        # The caller left, the guest broke off, or it is still at it: it had the call.
        await note()
        raise
    await note()


async def note_use(place: Place, seconds: float) -> None:
    """
    Write down that a sandbox was used, on its first call only, and how long its answer took.

    Before the caller has its answer: one that dies unused is replaced without a word, and one
    that was used must not be.
    """
    if place.used or place.name in _used:
        return
    if len(_used) > MARKS_KEPT:
        _used.clear()
    _used.add(place.name)
    try:
        if await in_thread(_note_first_use, place.pk, seconds):
            await forget_async(place.name)
    except BaseException as error:
        # Also where its caller left meanwhile: a second write changes nothing.
        _used.discard(place.name)
        if not isinstance(error, Error):
            raise
        logger.warning("The first use of %s could not be noted: %s", place.name, error)


def _note_first_use(pk: int, seconds: float) -> bool:
    noted = {"first_used_at": timezone.now(), "first_call_seconds": seconds}
    return write_if(Sandbox, pk, noted, "first_used_at IS NULL")

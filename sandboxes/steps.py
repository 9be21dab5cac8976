"""
What becomes of a step whose database goes away: it is given up as soon as the database answers.

A step (PENDING, STARTING, HALTING, RESUMING, STOPPING) carries the mark of its process and a
lease. A process that died is seen at once; one that lives, and could not record how its step
ended, would keep it until its lease is over. So it gives the lease up, and the reaper finishes
the step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from django.utils import timezone

from sandboxes import bookkeeping, workers
from sandboxes.bookkeeping import DATABASE_AWAY
from sandboxes.models import Sandbox
from sandboxes.states import UNFINISHED, State

logger = logging.getLogger(__name__)

Rest = ParamSpec("Rest")
Result = TypeVar("Result")


@contextmanager
def at(sandboxes: Iterable[Sandbox]) -> Iterator[None]:
    """
    Do a step of these sandboxes; where the database fails, give up the leases behind its error.

    sandboxes may grow meanwhile. They need no rows yet: what was not committed has none.
    """
    try:
        yield
    except DATABASE_AWAY:
        names = [sandbox.name for sandbox in sandboxes]
        if names:
            bookkeeping.write_later(give_up, names, timezone.now())
        raise


def step(work: Callable[Concatenate[Sandbox, Rest], Result]) -> Callable[..., Result]:
    """Decorate a function that does a step of its first argument, as at() does."""

    @wraps(work)
    def at_it(sandbox: Sandbox, *args: Rest.args, **kwargs: Rest.kwargs) -> Result:
        with at([sandbox]):
            return work(sandbox, *args, **kwargs)

    return at_it


def give_up(names: Iterable[str], failed_at: datetime) -> None:
    """
    Leave to the reaper what this process was doing with these when the database failed.

    What was lent by a commit without an answer counts as lent by nobody. A step that was begun
    after the failure is another one, and kept.
    """
    mine = Sandbox.objects.filter(
        name__in=names, worker=workers.current(), updated_at__lte=failed_at
    )
    count = mine.filter(state__in=UNFINISHED).update(worker="", worker_until=timezone.now())
    count += mine.filter(state=State.RUNNING).update(worker=workers.NOBODY)
    if count:
        logger.warning("The database answers again; given up to the reaper: %d", count)

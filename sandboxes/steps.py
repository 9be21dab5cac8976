"""
What becomes of a step whose database goes away: it is given up as soon as the database answers.

A step (PENDING, STARTING, HALTING, RESUMING, STOPPING) carries the mark of its process and a
lease. A process that died is seen at once; one that lives, and could not record how its step
ended, would keep it until its lease is over. So it gives the lease up, and the reaper finishes
the step.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from django.db import InterfaceError, OperationalError, connection
from django.utils import timezone

from sandboxes import workers
from sandboxes.models import Sandbox
from sandboxes.states import UNFINISHED

logger = logging.getLogger(__name__)

DATABASE_AWAY = (OperationalError, InterfaceError)
RETRY_SECONDS = 0.5

Rest = ParamSpec("Rest")
Result = TypeVar("Result")

_names: set[str] = set()
_lock = threading.Lock()


@contextmanager
def at(sandboxes: Iterable[Sandbox]) -> Iterator[None]:
    """
    Do a step of these sandboxes; where the database fails, give up the leases behind its error.

    sandboxes may grow meanwhile. They need no rows yet: what was not committed has none.
    """
    try:
        yield
    except DATABASE_AWAY:
        _give_up_soon({sandbox.name for sandbox in sandboxes})
        raise


def step(work: Callable[Concatenate[Sandbox, Rest], Result]) -> Callable[..., Result]:
    """Decorate a function that does a step of its first argument, as at() does."""

    @wraps(work)
    def at_it(sandbox: Sandbox, *args: Rest.args, **kwargs: Rest.kwargs) -> Result:
        with at([sandbox]):
            return work(sandbox, *args, **kwargs)

    return at_it


def _give_up_soon(names: set[str]) -> None:
    with _lock:
        begin = not _names
        _names.update(names)
    if begin and names:
        threading.Thread(target=_give_up_until_done, name="giving up leases", daemon=True).start()


def _give_up_until_done() -> None:
    while True:
        with _lock:
            names = set(_names)
        try:
            given_up = give_up(names)
        except DATABASE_AWAY:
            connection.close()
            time.sleep(RETRY_SECONDS)
            continue
        finally:
            connection.close()
        logger.warning("The database answers again; steps given up to the reaper: %d", given_up)
        with _lock:
            _names.difference_update(names)
            if not _names:
                return


def give_up(names: Iterable[str]) -> int:
    """Leave to the reaper the steps that this process is at with these; return how many."""
    mine = Sandbox.objects.filter(name__in=names, state__in=UNFINISHED, worker=workers.current())
    return mine.update(worker="", worker_until=timezone.now())

"""Do the same for several sandboxes at once, in threads of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.db import close_old_connections, connection

from sandboxes import connections

Item = TypeVar("Item")
Result = TypeVar("Result")

PARALLEL = 8


def together(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result | Exception]:
    """Return what work returns or raises for each item, in their order, when all have ended."""
    if len(items) == 1:
        return [_outcome(work, items[0])]

    def in_thread(item: Item) -> Result | Exception:
        close_old_connections()
        try:
            return _outcome(work, item)
        finally:
            connection.close()

    connections.let_go()
    with ThreadPoolExecutor(min(len(items), PARALLEL)) as threads:
        return list(threads.map(in_thread, items))


def _outcome(work: Callable[[Item], Result], item: Item) -> Result | Exception:
    try:
        return work(item)
    except Exception as error:  # told to the caller, when all of them have ended
        return error


def results(outcomes: Sequence[Result | Exception]) -> list[Result]:
    """Return the outcomes of together(), or raise the first that was raised."""
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return list(outcomes)

"""How the threads of a process share the database: who waits for something else keeps none of it."""

from __future__ import annotations

import contextlib
import threading
from contextlib import AbstractContextManager

from django.db import connection

_writing = threading.Lock()


def in_turn() -> AbstractContextManager[object]:
    """
    Let the threads of this process that write a burst do so one after the other, with SQLite.

    It lets one write at a time; the others look again after a sleep that is longer each time,
    also when nobody writes any more.
    """
    if connection.vendor != "sqlite" or connection.in_atomic_block:
        return contextlib.nullcontext()
    return _writing


def let_go() -> None:
    """
    Give this thread's connection back before a wait; its next query takes one again.

    Within a transaction nothing happens. Nor does it with SQLite, whose connections are taken
    from nobody, and cost a millisecond to open again.
    """
    if connection.vendor != "sqlite" and not connection.in_atomic_block:
        connection.close()

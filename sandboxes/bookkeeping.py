"""
What is still to be written down when an answer is out, and is tried until the database takes it.

One thread of a process does it, a moment later and one thing after the other. It is lost with its
process, so what is put here must be something that others can do without.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

from django.db import InterfaceError, OperationalError, close_old_connections, connection

logger = logging.getLogger(__name__)

DATABASE_AWAY = (OperationalError, InterfaceError)
LATER_SECONDS = 0.25
"""Until an answer is out: what is in no hurry would only slow it down."""

RETRY_SECONDS = 0.5

_Record = tuple[float, Callable[..., object], tuple[object, ...]]
_waiting: queue.Queue[_Record] = queue.Queue()
_lock = threading.Lock()
_thread: threading.Thread | None = None


def write_later(write: Callable[..., object], *args: object) -> None:
    """Call write in a moment; where the database is away, again and again until it answers."""
    global _thread
    _waiting.put((time.monotonic() + LATER_SECONDS, write, args))
    with _lock:
        # Not alive also in a process that was forked from one that had it.
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_work, name="bookkeeping", daemon=True)
            _thread.start()


def wait() -> None:
    """Return when all that was put here has been written."""
    _waiting.join()


def _work() -> None:
    while True:
        due, write, args = _waiting.get()
        time.sleep(max(0.0, due - time.monotonic()))
        while not _is_written(write, args):
            time.sleep(RETRY_SECONDS)
        _waiting.task_done()


def _is_written(write: Callable[..., object], args: tuple[object, ...]) -> bool:
    close_old_connections()
    try:
        write(*args)
    except DATABASE_AWAY as error:
        logger.warning("The database did not answer, and is asked again: %s", error)
        connection.close()
        return False
    except Exception:
        logger.exception("%s failed behind its answer", getattr(write, "__qualname__", write))
    finally:
        close_old_connections()
    return True

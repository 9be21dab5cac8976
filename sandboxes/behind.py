"""Work that goes on behind an answer: in threads of this process, and nobody waits for it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from django.db import close_old_connections

logger = logging.getLogger(__name__)

THREADS, STARTING_THREADS = 8, 2

_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="behind")
_starting = ThreadPoolExecutor(STARTING_THREADS, thread_name_prefix="starting")
"""Apart, because a start takes long, and what makes room must not wait for it."""


def submit(work: Callable[..., object], *args: object, **kwargs: object) -> None:
    """Call work soon. What this process does not finish, the reaper does: work says so by rows."""
    _threads.submit(run, work, *args, **kwargs)


def submit_start(work: Callable[..., object], *args: object) -> None:
    """Call work that brings a sandbox up soon, after what was submitted so before."""
    _starting.submit(run, work, *args)


def run(work: Callable[..., object], *args: object, **kwargs: object) -> None:
    """Call work as the outermost frame of a thread: what it raises is logged, and no more."""
    close_old_connections()
    try:
        work(*args, **kwargs)
    except Exception:
        logger.exception("%s failed behind its answer", getattr(work, "__qualname__", work))
    finally:
        close_old_connections()

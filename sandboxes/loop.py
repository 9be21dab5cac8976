"""Run a pass again and again: signals, sleeping, connections. A pass is a plain function."""

from __future__ import annotations

import logging
import random
import signal
import threading
from collections.abc import Callable

from django.db import Error, close_old_connections

logger = logging.getLogger(__name__)


def run_every(
    run_pass: Callable[[], object],
    *,
    seconds: float,
    wait: Callable[[float], object] | None = None,
    stopping: threading.Event | None = None,
) -> None:
    """
    Call run_pass about every so many seconds until SIGTERM or SIGINT, which set stopping.

    wait(seconds) waits between two passes; it may return sooner, when there is work. The first
    signal lets the pass finish. A pass that raises is logged and tried again: this is the
    outermost loop.
    """
    stopping = stopping or threading.Event()
    wait = wait or stopping.wait
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    while not stopping.is_set():
        close_old_connections()
        try:
            if done := run_pass():
                logger.info("%s", done)
        except Error as error:
            logger.warning("The database did not answer: %s", error)
        except Exception:
            logger.exception("A pass failed; it is tried again")
        finally:
            close_old_connections()
        # Jitter keeps several copies from running in step.
        wait(seconds * random.uniform(0.9, 1.1))  # noqa: S311  not a secret

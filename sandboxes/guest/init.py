"""What PID 1 has to do, for containers that are started without an init of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import NoReturn

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def run_under_init() -> None:
    """
    Return in a new child; the calling process stays behind and never returns.

    It passes signals on, reaps every orphan, and ends as the child ends, whereupon the kernel
    ends whatever else is left in the sandbox.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    child = os.fork()
    if child:
        _reap_until_end_of(child)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)


def _reap_until_end_of(child: int) -> NoReturn:
    def pass_on(signum: int, _frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signum)

    for signum in PASSED_ON:
        signal.signal(signum, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            sys.stdout.flush()
            # As shells report a signal: PID 1 cannot die of one itself.
            os._exit(code if code >= 0 else 128 - code)

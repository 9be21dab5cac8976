"""Stop and start a sandbox, its files kept."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings

from sandboxes import deployment, ending, lifecycle
from sandboxes.actions.finding import find_serving
from sandboxes.actions.keeping import restore
from sandboxes.models import Sandbox
from sandboxes.refusals import NotRunning, Refused
from sandboxes.states import State, StateConflict
from sandboxes.tokens import Caller


def halt(caller: Caller, identity: str) -> None:
    """End its processes and keep its files; one that is halted or recycled is a success."""
    sandbox = find_serving(caller, identity)
    if sandbox.state == State.HALTED or sandbox.can_be_restored:
        return
    if not deployment.of(sandbox).supports_stop:
        raise Refused(
            f"The {sandbox.deployer} deployer cannot stop a sandbox and keep its files; release it "
            f"instead."
        )
    if sandbox.state != State.RUNNING:
        raise NotRunning(f"Sandbox {sandbox.name} is {sandbox.state}; only a running one can stop.")
    with _refusing_conflicts(sandbox):
        ending.halt(sandbox, actor=caller.actor)


def resume(caller: Caller, identity: str) -> None:
    """
    Start a halted or recycled sandbox again, with its files; one that runs is a success.

    Raise Unknown, Ended, NotRunning, or lifecycle.StartFailed.
    """
    sandbox = find_serving(caller, identity)
    if sandbox.can_be_restored:
        restore(sandbox.name, actor=caller.actor)
        return
    if sandbox.state == State.RUNNING:
        return
    if sandbox.state != State.HALTED:
        raise NotRunning(
            f"Sandbox {sandbox.name} is {sandbox.state}; only a stopped one can start."
        )
    deadline = time.monotonic() + settings.PLATFORM.CREATE_TIMEOUT
    with _refusing_conflicts(sandbox):
        lifecycle.start(sandbox, actor=caller.actor, deadline=deadline)


@contextmanager
def _refusing_conflicts(sandbox: Sandbox) -> Iterator[None]:
    """Tell a caller whose request met another one on the same sandbox."""
    try:
        yield
    except StateConflict:
        sandbox.refresh_from_db()
        raise NotRunning(
            f"Another request is changing sandbox {sandbox.name}, which is now {sandbox.state}; "
            f"look at it again."
        ) from None

"""
How one sandbox is halted or goes away: decide in a transaction, act outside it, record.

Everything here blocks and may be called from several threads and processes at once. A step
that fails leaves its row where the reaper tries it again.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from pathlib import Path

from django.db import transaction
from django.utils import timezone

from deployers.errors import DeployerError
from deployers.observation import Phase
from deployers.trees import delete_tree
from sandboxes import behind, connections, deployment, ports, steps
from sandboxes.models import Sandbox
from sandboxes.states import ENDED, State, StateConflict, StopReason

logger = logging.getLogger(__name__)

RETRY_AFTER = timedelta(seconds=10)


@steps.step
def halt(sandbox: Sandbox, *, actor: str) -> None:
    """
    End a RUNNING sandbox's processes and keep its files for a later start().

    Raise DeployerError where that is not certain yet; the reaper then tries again.
    """
    sandbox.move_to(State.HALTING, actor=actor, url="")
    if error := finish_halt(sandbox, actor=actor):
        raise error


@steps.step
def finish_halt(sandbox: Sandbox, *, actor: str) -> DeployerError | None:
    """End what a HALTING sandbox still runs; return why that is not certain, None if it is."""
    try:
        deployer = deployment.of(sandbox)
        connections.let_go()
        if deployer.inspect(sandbox.name).phase in (
            Phase.READY,
            Phase.STARTING,
            Phase.PAUSED,
        ):
            deployer.stop(sandbox.name)
    except DeployerError as error:
        logger.warning("%s is not halted yet: %s", sandbox.name, error)
        Sandbox.objects.filter(pk=sandbox.pk, state=State.HALTING).update(
            worker_until=timezone.now() + RETRY_AFTER, worker="", detail=str(error)
        )
        return error
    try:
        sandbox.move_to(State.HALTED, actor=actor, detail=sandbox.detail)
    except StateConflict:
        sandbox.refresh_from_db()
    return None


@steps.step
def stop(
    sandbox: Sandbox,
    *,
    reason: StopReason,
    actor: str,
    detail: str = "",
    unless_moved: bool = False,
) -> bool:
    """
    Give a sandbox up and remove it; return whether it is gone already.

    False leaves it STOPPING, for the reaper to try again. With unless_moved a sandbox that
    another process has moved since it was read is left to that process, and read again.
    """
    if not _give_up_row(
        sandbox, reason=reason, actor=actor, detail=detail, unless_moved=unless_moved
    ):
        return sandbox.state == State.STOPPED
    return finish_stop(sandbox, actor=actor)


def _give_up_row(
    sandbox: Sandbox,
    *,
    reason: StopReason,
    actor: str,
    detail: str,
    unless_moved: bool,
    **fields: object,
) -> bool:
    """Move the row to STOPPING; return whether its removal is now, or still, to be done."""
    while sandbox.state not in ENDED:
        try:
            sandbox.move_to(
                State.STOPPING,
                actor=actor,
                stop_reason=reason,
                detail=detail or sandbox.detail,
                **fields,
            )
        except StateConflict:
            sandbox.refresh_from_db()
            if unless_moved:
                return False
    return sandbox.state == State.STOPPING


@steps.step
def finish_stop(sandbox: Sandbox, *, actor: str) -> bool:
    """Remove what a STOPPING sandbox still has outside; return whether all of it is gone."""
    kept = Sandbox.objects.restorable().filter(pk=sandbox.pk).exists()
    try:
        # Not the deployer of today's settings: it would find nothing and call that gone.
        deployer = deployment.of(sandbox)
        connections.let_go()
        deployer.remove(sandbox.name)
        if not kept:
            _delete_files(sandbox)
    except (DeployerError, OSError) as error:
        logger.warning("%s is not removed yet: %s", sandbox.name, error)
        Sandbox.objects.filter(pk=sandbox.pk, state=State.STOPPING).update(
            worker_until=timezone.now() + RETRY_AFTER, worker="", detail=str(error)
        )
        return False
    cleared = {} if kept else {"environment": {}, "owns_workspace": False}
    try:
        with transaction.atomic():
            ports.give_back(sandbox)
            sandbox.move_to(
                State.STOPPED, actor=actor, stopped_at=timezone.now(), url="", **cleared
            )
    except StateConflict:
        sandbox.refresh_from_db()
    return True


def _delete_files(sandbox: Sandbox) -> None:
    if sandbox.owns_workspace and sandbox.workspace:
        delete_tree(Path(sandbox.workspace))


def sweep_files(sandbox: Sandbox) -> None:
    """Delete what a STOPPED sandbox that is restored no more was keeping; OSError: not yet."""
    _delete_files(sandbox)
    Sandbox.objects.filter(pk=sandbox.pk).update(owns_workspace=False, environment={})


@steps.step
def stop_soon(
    sandbox: Sandbox,
    *,
    reason: StopReason,
    actor: str,
    detail: str = "",
    unless_moved: bool = False,
    **fields: object,
) -> bool:
    """
    Give a sandbox up now and remove it behind the caller's back; return whether it is given up.

    Its row is STOPPING until it is gone, and saves fields with that; what this process does not
    finish, the reaper does.
    With unless_moved a sandbox that another process has moved since it was read, a warm one
    that was lent, is left alone.
    """
    if not _give_up_row(
        sandbox, reason=reason, actor=actor, detail=detail, unless_moved=unless_moved, **fields
    ):
        return sandbox.state in ENDED
    behind.submit(finish_stop, sandbox, actor=actor)
    return True

"""
How one sandbox comes up: decide in a transaction, act outside it, record in a transaction.

Everything here blocks and may be called from several threads and processes at once.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from django.db import transaction
from django.utils import timezone

from deployers.errors import DeployerError, PortTaken, Rejected
from deployers.observation import Observation
from sandboxes import (
    binding,
    connections,
    deployment,
    ending,
    ports,
    pulling,
    specs,
    steps,
    succession,
    workers,
    workspaces,
)
from sandboxes.models import Sandbox, Session
from sandboxes.readiness import NotReady, wait_until_ready
from sandboxes.states import State, StopReason
from sandboxes.timeline import Stopwatch

logger = logging.getLogger(__name__)

PORT_ATTEMPTS = 5


class StartFailed(Exception):
    """A sandbox did not come up; again_later tells whether the same call may work later."""

    def __init__(self, sentence: str, *, again_later: bool) -> None:
        super().__init__(sentence)
        self.again_later = again_later


# An engine collapses under a burst; about two starts per core keep it busy and no more.
AT_ONCE = max(1, 2 * (os.cpu_count() or 1))
_slots = threading.BoundedSemaphore(AT_ONCE)


@contextmanager
def _start_slot(deadline: float) -> Iterator[None]:
    if not _slots.acquire(timeout=max(0.0, deadline - time.monotonic())):
        raise StartFailed(
            "Too many sandboxes are being started; this one waited in the queue until its "
            "CREATE_TIMEOUT was over. Ask again later, or for fewer at once.",
            again_later=True,
        )
    try:
        yield
    finally:
        _slots.release()


def _start_on_a_port(sandbox: Sandbox) -> Observation:
    """Start it, with another port when a stranger holds the leased one; return what is there."""
    deployer = deployment.of(sandbox)
    for attempt in range(PORT_ATTEMPTS):
        port = ports.lease(sandbox) if deployer.needs_host_port else None
        spec = specs.spec_of(sandbox, host_port=port)
        connections.let_go()
        try:
            seen = deployer.start(spec)
        except PortTaken as error:
            # What was started once keeps the port that it was made with.
            if attempt == PORT_ATTEMPTS - 1 or sandbox.state == State.RESUMING:
                raise
            ports.give_to_stranger(sandbox, port)
            logger.warning("Port %s is held by another program: %s", port, error)
            continue
        sandbox.container_id = seen.container_id
        return seen
    raise AssertionError("unreachable")


def _bring_up(sandbox: Sandbox, deadline: float, watch: Stopwatch) -> str:
    workspaces.make(sandbox)
    seen = _start_on_a_port(sandbox)
    watch.note_laps(seen.laps, "started")
    url = wait_until_ready(
        deployment.of(sandbox), sandbox.name, seen.url, sandbox.guest_secret, deadline=deadline
    )
    watch.note("guest ready")
    return url


@steps.step
def start(
    sandbox: Sandbox,
    *,
    actor: str,
    deadline: float,
    files: Sequence[binding.File] = (),
) -> None:
    """
    Bring a PENDING or HALTED sandbox up; deadline is a time.monotonic() value.

    One with an owner is RUNNING then and has the files; one without is WARM. Raise StartFailed
    with stage, cause and what to change. A new one that failed is removed whole; a halted one
    is halted again, with its files.
    """
    was_halted = sandbox.state == State.HALTED
    begun = time.monotonic()
    # A timeline tells how it came up first, however often it is stopped and started.
    watch = Stopwatch({} if was_halted else sandbox.timeline)
    try:
        # Outside of the slots: a pull waits for a registry and keeps no core busy.
        deployer = deployment.of(sandbox)
        connections.let_go()
        if pulling.ensure_image(deployer, sandbox.image, deadline=deadline):
            watch.note("image")
        with _start_slot(deadline):
            watch.note("queued")
            sandbox.move_to(State.RESUMING if was_halted else State.STARTING, actor=actor)
            url = _bring_up(sandbox, deadline, watch)
        if sandbox.owner_id is None:
            _become_warm(sandbox, url, actor=actor)
        else:
            if was_halted and sandbox.can_bind and sandbox.environment:
                # A guest that was bound while it was warm has forgotten that with its processes.
                binding.bind(url, sandbox.guest_secret, sandbox.environment, ())
            if files:
                binding.give_files(url, sandbox.guest_secret, files)
                watch.note("bound")
            _become_running(sandbox, url, actor=actor)
    except (
        DeployerError,
        NotReady,
        StartFailed,
        OSError,
        ports.NoPortLeft,
        binding.GuestGone,
    ) as error:
        raise _give_up(sandbox, error, actor=actor, halt_again=was_halted) from error
    except BaseException as error:
        _give_up(sandbox, error, actor=actor, halt_again=was_halted)
        raise
    logger.info("Started %s in %.0f ms", sandbox.name, (time.monotonic() - begun) * 1000)


def _become_running(sandbox: Sandbox, url: str, *, actor: str) -> None:
    now = timezone.now()
    # Until its caller knows of it: see actions/creating.py.
    worker = workers.current() if sandbox.claimed_at is None else ""
    with transaction.atomic():
        sandbox.move_to(
            State.RUNNING,
            actor=actor,
            url=url,
            container_id=sandbox.container_id,
            detail="",
            timeline=sandbox.timeline,
            claimed_at=sandbox.claimed_at or now,
            last_used_at=now,
            worker=worker,
        )
        # It may have taken longer to come up than its session may be idle.
        Session.objects.filter(pk=sandbox.session_id).update(last_active_at=now)
        if sandbox.restores_id:
            succession.take_over(sandbox)


def _become_warm(sandbox: Sandbox, url: str, *, actor: str) -> None:
    binding.warm_up(url, sandbox.guest_secret)
    sandbox.move_to(
        State.WARM,
        actor=actor,
        url=url,
        container_id=sandbox.container_id,
        image_id=sandbox.image_id or _image_id(sandbox),
        can_bind=binding.can_bind(url, sandbox.guest_secret),
        timeline=sandbox.timeline,
    )


def _image_id(sandbox: Sandbox) -> str:
    """Ask for the id of an image that was pulled only after its sandbox's row was written."""
    deployer = deployment.of(sandbox)
    return (deployer.find_image(sandbox.image) or "") if deployer.supports_images else ""


def _give_up(
    sandbox: Sandbox, error: BaseException, *, actor: str, halt_again: bool
) -> StartFailed:
    if isinstance(error, StartFailed):
        failure = error
    elif isinstance(error, NotReady):
        failure = StartFailed(f"Sandbox {sandbox.name}: {error}", again_later=True)
    else:
        failure = StartFailed(
            f"Sandbox {sandbox.name} could not be started: {error}",
            again_later=not isinstance(error, Rejected),
        )
    logger.warning("%s", failure)
    if halt_again:
        _halt_again(sandbox, actor=actor, detail=str(failure))
    else:
        ending.stop(sandbox, reason=StopReason.FAILED, actor=actor, detail=str(failure))
    return failure


def _halt_again(sandbox: Sandbox, *, actor: str, detail: str) -> None:
    """Put a halted sandbox that did not start back, whatever became of its processes."""
    if sandbox.state != State.RESUMING:
        return
    sandbox.move_to(State.HALTING, actor=actor, url="", detail=detail)
    ending.finish_halt(sandbox, actor=actor)

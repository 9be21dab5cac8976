"""The verbs: each with who may do it and what it changes. Views, admin and commands call these."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from django.conf import settings
from django.db import close_old_connections, transaction
from django.utils import timezone

from deployers.base import Phase
from deployers.errors import DeployerError, UnsupportedSpec
from sandboxes import deployment, ending, lifecycle, log_context, registry, workspaces
from sandboxes.environment import check_environment
from sandboxes.models import Event, Installation, Sandbox, SandboxType, Session
from sandboxes.models.sandbox import full_name, lease_end
from sandboxes.refusals import (
    CapReached,
    Ended,
    NotReachable,
    NotRunning,
    Refusal,
    Refused,
    Unknown,
)
from sandboxes.room import when_there_is_room
from sandboxes.states import ENDED, State, StateConflict, StopReason
from sandboxes.tokens import Caller

logger = logging.getLogger(__name__)

CLEANUP_THREADS = 8
ASYNC_SUFFIX = "_async"


def find_type(name: str | None) -> SandboxType:
    """
    Return the enabled type called name, or the first default type for None.

    The SDK's async classes ask for NAME_async: the same type. Refused names what there is.
    """
    wanted = name or settings.PLATFORM.DEFAULT_SANDBOX_TYPE[0]
    enabled = {kind.name: kind for kind in SandboxType.objects.filter(enabled=True)}
    found = enabled.get(wanted) or enabled.get(wanted.removesuffix(ASYNC_SUFFIX))
    if found is None:
        raise Refused(
            f"There is no sandbox type {wanted!r}; there are {', '.join(sorted(enabled))}.",
            field="sandbox_type",
        )
    return found


def type_exists(name: str) -> bool:
    """Tell whether an enabled type has that name."""
    return SandboxType.objects.filter(enabled=True, name=name).exists()


def _check_environment(environment: Mapping[str, str]) -> None:
    try:
        check_environment(dict(environment))
    except ValueError as error:
        raise Refused(str(error), field="environment") from None


def _insert(sandbox: Sandbox, *, caller: Caller, session_key: str) -> None:
    """Write the PENDING row, unless the cap is reached; the count and the row are one step."""
    cap = settings.PLATFORM.MAX_SANDBOX_INSTANCES
    with transaction.atomic():
        if cap:
            # Everyone who inserts under a cap waits here for the one before.
            Installation.objects.select_for_update().get()
            if Sandbox.objects.exclude(state=State.STOPPED).count() >= cap:
                raise CapReached(
                    f"All {cap} sandboxes that MAX_SANDBOX_INSTANCES allows exist already: "
                    f"release some, or raise it."
                )
        if session_key:
            sandbox.session, _ = Session.objects.update_or_create(
                owner_id=caller.user_id,
                key=session_key,
                defaults={"last_active_at": timezone.now()},
            )
        sandbox.save(force_insert=True)
        Event.objects.create(sandbox=sandbox, new_state=State.PENDING, actor=caller.actor)


def create(
    caller: Caller,
    *,
    type_name: str | None = None,
    session_key: str = "",
    meta: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
    mount_dir: str | None = None,
) -> Sandbox:
    """
    Make a sandbox for the caller and return it RUNNING.

    Raise Refused for a wish that cannot be met here, CapReached, or lifecycle.StartFailed.
    """
    deadline = time.monotonic() + settings.PLATFORM.CREATE_TIMEOUT
    kind = find_type(type_name)
    _check_environment(environment or {})
    deployer = deployment.current()
    if not deployer.supports_images and not kind.runs_without_image:
        raise Refused(
            f"The type {kind.name!r} needs an image, and the {deployment.current_name()} deployer "
            f"has none: set CONTAINER_DEPLOYMENT=docker.",
            field="sandbox_type",
        )
    sandbox = Sandbox(
        sandbox_type=kind,
        owner_id=caller.user_id,
        deployer=deployment.current_name(),
        image=registry.image_of(kind.name, kind.image),
        environment=dict(environment or {}),
        meta=dict(meta or {}),
        timeout_seconds=kind.timeout_seconds or settings.PLATFORM.RUNTIME_SANDBOX_TIMEOUT,
        worker_until=lease_end(),
    )
    sandbox.workspace, sandbox.owns_workspace = workspaces.choose(sandbox.name, mount_dir)
    try:
        lifecycle.validate(sandbox)
    except UnsupportedSpec as error:
        raise Refused(str(error), field="sandbox_type") from error
    when_there_is_room(
        lambda: _insert(sandbox, caller=caller, session_key=session_key),
        CapReached,
        Sandbox.objects.filter(state=State.STOPPING).exists,
    )
    log_context.note_sandbox(sandbox.name)
    lifecycle.start(sandbox, actor=caller.actor, deadline=deadline)
    return sandbox


def find(caller: Caller, identity: str) -> Sandbox:
    """Return the caller's sandbox by name or id; raise Unknown, also for somebody else's."""
    found = (
        Sandbox.objects.owned_by(caller)
        .filter(name=full_name(identity))
        .select_related("sandbox_type", "session")
        .first()
    )
    if found is None:
        raise Unknown(f"There is no sandbox {identity!r}.")
    log_context.note_sandbox(found.name)
    return found


def find_live(caller: Caller, identity: str) -> Sandbox:
    """Return the caller's sandbox if it has not ended; raise Unknown or Ended."""
    sandbox = find(caller, identity)
    if sandbox.state in ENDED:
        raise Ended(ending_of(sandbox.name, sandbox.stop_reason, sandbox.detail))
    return sandbox


def ending_of(name: str, reason: str, detail: str) -> str:
    """Say that a sandbox has ended, and why."""
    because = f": {detail}" if detail else ""
    return f"Sandbox {name} has ended ({reason}){because}"


def release(caller: Caller, identity: str) -> None:
    """
    Give a sandbox up for good; one that is unknown or gone is a success.

    Its removal goes on behind the answer, and is finished by the reaper if need be.
    """
    try:
        sandbox = find(caller, identity)
    except Unknown:
        return
    ending.stop_soon(sandbox, reason=StopReason.RELEASED, actor=caller.actor)


def halt(caller: Caller, identity: str) -> None:
    """End its processes and keep its files; one that is halted already is a success."""
    sandbox = find_live(caller, identity)
    if sandbox.state == State.HALTED:
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
    """Start a halted sandbox again, with its files; one that runs already is a success."""
    sandbox = find_live(caller, identity)
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


def status(caller: Caller, identity: str) -> str | None:
    """Return what the engine would call its state (running, exited, …), None once ended."""
    state = find(caller, identity).state
    return {
        State.PENDING: "created",
        State.STARTING: "created",
        State.WARM: "running",
        State.RUNNING: "running",
        State.HALTING: "running",
        State.HALTED: "exited",
        State.RESUMING: "exited",
    }.get(State(state))


def cleanup(caller: Caller) -> int:
    """Release every sandbox that the caller may end; return how many."""
    mine = Sandbox.objects.owned_by(caller).exclude(state=State.STOPPED)
    return stop_all(list(mine), reason=StopReason.CLEANUP, actor=caller.actor)


def stop_all(sandboxes: list[Sandbox], *, reason: StopReason, actor: str) -> int:
    """Stop several at once; return how many are gone."""

    def stop(sandbox: Sandbox) -> bool:
        close_old_connections()
        try:
            return ending.stop(sandbox, reason=reason, actor=actor)
        finally:
            close_old_connections()

    if not sandboxes:
        return 0
    with ThreadPoolExecutor(CLEANUP_THREADS) as pool:
        return sum(pool.map(stop, sandboxes))


def explain_silence(name: str, *, actor: str) -> Refusal:
    """
    Look at a sandbox whose guest does not answer; return what to tell the caller.

    One that runs by its row and ended by the infrastructure's word is stopped as lost.
    """
    sandbox = Sandbox.objects.filter(name=name).first()
    if sandbox is None:
        return Unknown(f"There is no sandbox {name!r}.")
    if sandbox.state in ENDED:
        return Ended(ending_of(name, sandbox.stop_reason, sandbox.detail))
    if sandbox.state != State.RUNNING:
        return NotRunning(f"Sandbox {name} is {sandbox.state}.")
    try:
        seen = deployment.of(sandbox).inspect(name)
    except DeployerError as error:
        return NotReachable(f"Sandbox {name} cannot be reached: {error}")
    if seen.phase not in (Phase.BROKEN, Phase.ABSENT):
        return NotReachable(
            f"The guest of sandbox {name} does not answer; if it does not come back, release it."
        )
    why = seen.detail or "it is not there any more"
    logger.warning("Sandbox %s is lost: %s", name, why)
    if (
        ending.stop(sandbox, reason=StopReason.LOST, actor=actor, detail=why, unless_moved=True)
        or sandbox.state == State.STOPPING
    ):
        return Ended(ending_of(name, StopReason.LOST, why))
    return NotRunning(f"Sandbox {name} is being changed by another request; look at it again.")

"""The verbs: each with who may do it and what it changes. Views, admin and commands call these."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from django.conf import settings
from django.db import close_old_connections, transaction
from django.utils import timezone

from deployers.errors import DeployerError, UnsupportedSpec
from sandboxes import deployment, lifecycle, log_context, registry
from sandboxes.models import Event, Installation, Sandbox, SandboxType, Session
from sandboxes.models.sandbox import WORKER_LEASE
from sandboxes.states import State, StopReason
from sandboxes.tokens import Caller

logger = logging.getLogger(__name__)

CLEANUP_THREADS = 8
ASYNC_SUFFIX = "_async"


class Refused(Exception):
    """The verb cannot be done; field names what to change in the request, if anything."""

    def __init__(self, sentence: str, *, field: str = "") -> None:
        super().__init__(sentence)
        self.field = field


class Unknown(Exception):
    """No sandbox of this caller has that identity."""


class Ended(Exception):
    """The sandbox is there no more; the sentence says since when and why."""


class CapReached(Exception):
    """MAX_SANDBOX_INSTANCES sandboxes exist already."""


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
    for name in environment:
        if name in lifecycle.RESERVED_ENVIRONMENT or name.startswith("GUEST_"):
            raise Refused(
                f"{name} belongs to the platform; leave it out of environment.", field="environment"
            )


def _workspace(name: str, mount_dir: str | None) -> tuple[str, bool]:
    """Return the workspace's folder and whether it is ours to delete."""
    if not deployment.current().supports_mounts:
        return "", False
    if mount_dir is None:
        return str(lifecycle.workspace_for(name)), True
    if not settings.PLATFORM.ALLOW_MOUNT_DIR:
        raise Refused(
            "mount_dir names a folder of the server, which is not allowed here: leave it out, or "
            "set ALLOW_MOUNT_DIR=True on the server.",
            field="mount_dir",
        )
    return str(Path(mount_dir).absolute()), False


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
        worker_until=timezone.now() + WORKER_LEASE,
    )
    sandbox.workspace, sandbox.owns_workspace = _workspace(sandbox.name, mount_dir)
    try:
        lifecycle.validate(sandbox)
    except UnsupportedSpec as error:
        raise Refused(str(error), field="sandbox_type") from error
    _insert(sandbox, caller=caller, session_key=session_key)
    log_context.note_sandbox(sandbox.name)
    lifecycle.start(sandbox, actor=caller.actor, deadline=deadline)
    return sandbox


def find(caller: Caller, identity: str) -> Sandbox:
    """Return the caller's sandbox by name or id; raise Unknown, also for somebody else's."""
    found = (
        Sandbox.objects.owned_by(caller)
        .by_identity(identity)
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
    if sandbox.state in (State.STOPPING, State.STOPPED):
        raise Ended(ending_of(sandbox.name, sandbox.stop_reason, sandbox.detail))
    return sandbox


def ending_of(name: str, reason: str, detail: str) -> str:
    """Say that a sandbox has ended, and why."""
    because = f": {detail}" if detail else ""
    return f"Sandbox {name} has ended ({reason}){because}"


def release(caller: Caller, identity: str) -> None:
    """Give a sandbox up for good and remove it; one that is unknown or gone is a success."""
    try:
        sandbox = find(caller, identity)
    except Unknown:
        return
    lifecycle.stop(sandbox, reason=StopReason.RELEASED, actor=caller.actor)


def halt(caller: Caller, identity: str) -> None:
    """End its processes and keep its files; one that is halted already is a success."""
    sandbox = find_live(caller, identity)
    if sandbox.state == State.HALTED:
        return
    if not deployment.current().supports_stop:
        raise Refused(
            f"The {deployment.current_name()} deployer cannot stop a sandbox and keep its files; "
            f"release it instead."
        )
    if sandbox.state != State.RUNNING:
        raise Refused(f"Sandbox {sandbox.name} is {sandbox.state}; only a running one can stop.")
    lifecycle.halt(sandbox, actor=caller.actor)


def resume(caller: Caller, identity: str) -> None:
    """Start a halted sandbox again, with its files; one that runs already is a success."""
    sandbox = find_live(caller, identity)
    if sandbox.state == State.RUNNING:
        return
    if sandbox.state != State.HALTED:
        raise Refused(f"Sandbox {sandbox.name} is {sandbox.state}; only a stopped one can start.")
    deadline = time.monotonic() + settings.PLATFORM.CREATE_TIMEOUT
    lifecycle.start(sandbox, actor=caller.actor, deadline=deadline)


def status(caller: Caller, identity: str) -> str | None:
    """Return what the engine would call its state (running, exited, …), None once ended."""
    state = find(caller, identity).state
    return {
        State.PENDING: "created",
        State.STARTING: "created",
        State.WARM: "running",
        State.RUNNING: "running",
        State.HALTED: "exited",
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
            return lifecycle.stop(sandbox, reason=reason, actor=actor)
        finally:
            close_old_connections()

    if not sandboxes:
        return 0
    with ThreadPoolExecutor(CLEANUP_THREADS) as pool:
        return sum(pool.map(stop, sandboxes))


def mark_lost(name: str, *, actor: str) -> str:
    """
    Look at a sandbox whose guest does not answer; return what to tell the caller.

    If the infrastructure says that it ended, it is stopped for that reason.
    """
    sandbox = Sandbox.objects.filter(name=name).first()
    if sandbox is None:
        return f"There is no sandbox {name!r}."
    if sandbox.state in (State.STOPPING, State.STOPPED):
        return ending_of(name, sandbox.stop_reason, sandbox.detail)
    deployer = deployment.current()
    try:
        seen = deployer.inspect(name)
    except DeployerError as error:
        return f"Sandbox {name} cannot be reached: {error}"
    if seen.phase in ("ready", "starting"):
        return f"The guest of sandbox {name} does not answer, though its process runs."
    why = seen.detail or "it is not there any more"
    lifecycle.stop(sandbox, reason=StopReason.LOST, actor=actor, detail=why, unless_moved=True)
    return ending_of(name, StopReason.LOST, why)

"""Look at types and sandboxes, as their callers may."""

from __future__ import annotations

import time

from django.conf import settings
from django.db.models.signals import post_delete, post_save

from deployers.errors import DeployerError
from sandboxes import connections, deployment, log_context, losing
from sandboxes.models import Sandbox, SandboxType
from sandboxes.models.sandbox import full_name
from sandboxes.refusals import Ended, NotReachable, NotRunning, Refusal, Refused, Unknown
from sandboxes.states import ENDED, State
from sandboxes.tokens import Caller

ASYNC_SUFFIX = "_async"


FRESH_SECONDS = 1.0
"""How long a type that was found stands: a change is known to every worker after at most this."""

_found: dict[str, tuple[float, SandboxType]] = {}


def forget_types(**_: object) -> None:
    """Ask the database again for each type; a change in this process needs no waiting."""
    _found.clear()


for signal in (post_save, post_delete):
    signal.connect(forget_types, sender=SandboxType)


def find_type(name: str | None) -> SandboxType:
    """
    Return the enabled type called name, or the first default type for None.

    It is shared by all requests: not to be changed. The SDK's async classes ask for NAME_async:
    the same type. Refused names what there is.
    """
    wanted = name or settings.PLATFORM.DEFAULT_SANDBOX_TYPE[0]
    known = _found.get(wanted)
    if known is None or time.monotonic() - known[0] > FRESH_SECONDS:
        # Only names of types get here twice, so that callers cannot make it grow.
        known = _found[wanted] = (time.monotonic(), _look_up_type(wanted))
    return known[1]


def _look_up_type(wanted: str) -> SandboxType:
    enabled = SandboxType.objects.filter(enabled=True)
    names = (wanted, wanted.removesuffix(ASYNC_SUFFIX))
    found = {kind.name: kind for kind in enabled.filter(name__in=names)}
    if not found:
        there = ", ".join(enabled.order_by("name").values_list("name", flat=True))
        raise Refused(
            f"There is no sandbox type {wanted!r}; there are {there}.", field="sandbox_type"
        )
    return found.get(wanted) or found[names[1]]


def type_exists(name: str) -> bool:
    """Tell whether an enabled type has that name."""
    return SandboxType.objects.filter(enabled=True, name=name).exists()


def find(caller: Caller, identity: str) -> Sandbox:
    """Return the caller's sandbox by name or id; raise Unknown, also for somebody else's."""
    found = (
        Sandbox.objects.owned_by(caller)
        .filter(name=full_name(identity))
        .select_related("sandbox_type", "session", "replaced_by")
        .first()
    )
    if found is None:
        raise Unknown(f"There is no sandbox {identity!r}.")
    log_context.note_sandbox(found.name)
    return found


def find_serving(caller: Caller, identity: str) -> Sandbox:
    """
    Return the caller's sandbox, or the one that has taken its place.

    It has not ended, or its next touch restores it. Raise Unknown or Ended.
    """
    sandbox = find(caller, identity)
    sandbox = sandbox.replaced_by or sandbox
    if sandbox.state in ENDED and not sandbox.can_be_restored:
        raise Ended(ending_of(sandbox.name, sandbox.stop_reason, sandbox.detail))
    return sandbox


def ending_of(name: str, reason: str, detail: str) -> str:
    """Say that a sandbox has ended, and why."""
    because = f": {detail}" if detail else ""
    return f"Sandbox {name} has ended ({reason}){because}"


def status(caller: Caller, identity: str) -> str | None:
    """Return what the engine would call its state (running, exited, …), None once ended."""
    sandbox = find(caller, identity)
    state = (sandbox.replaced_by or sandbox).state
    return {
        State.PENDING: "created",
        State.STARTING: "created",
        State.WARM: "running",
        State.RUNNING: "running",
        State.HALTING: "running",
        State.HALTED: "exited",
        State.RESUMING: "exited",
    }.get(State(state))


def explain_silence(name: str, *, actor: str) -> Refusal:
    """
    Look at a sandbox whose guest does not answer; return what to tell the caller.

    One that runs by its row and ended by the infrastructure's word is stopped as lost.
    """
    sandbox = Sandbox.objects.filter(name=name).first()
    if sandbox is None:
        return Unknown(f"There is no sandbox {name!r}.")
    if sandbox.replaced_by_id or sandbox.can_be_restored:
        return NotRunning(
            f"Sandbox {name} was put to rest or replaced at this moment; the same call again "
            f"reaches the one that serves now."
        )
    if sandbox.state in ENDED:
        return Ended(ending_of(name, sandbox.stop_reason, sandbox.detail))
    if sandbox.state != State.RUNNING:
        return NotRunning(f"Sandbox {name} is {sandbox.state}.")
    try:
        deployer = deployment.of(sandbox)
        connections.let_go()
        why = losing.why_lost(deployer.inspect(name))
    except DeployerError as error:
        return NotReachable(f"Sandbox {name} cannot be reached: {error}")
    if why is None:
        return NotReachable(
            f"The guest of sandbox {name} does not answer; if it does not come back, release it."
        )
    if losing.give_up(sandbox, why, actor=actor):
        return Ended(ending_of(name, sandbox.stop_reason, sandbox.detail))
    return NotRunning(f"Sandbox {name} is being changed by another request; look at it again.")

"""Lend sandboxes: from the pool where there is one that fits, else made for the caller."""

from __future__ import annotations

import time

from django.conf import settings

from deployers.errors import UnsupportedSpec
from sandboxes import (
    binding,
    bookkeeping,
    deployment,
    ending,
    lifecycle,
    log_context,
    registry,
    specs,
    timeline,
    workers,
    workspaces,
)
from sandboxes.actions.claiming import claim, claim_next
from sandboxes.actions.finding import find_type
from sandboxes.actions.inserting import check_batch, end_of_life, insert, touch_session
from sandboxes.actions.together import together
from sandboxes.actions.wishes import Wish
from sandboxes.models import Sandbox, SandboxType
from sandboxes.models.sandbox import lease_end
from sandboxes.recipe import recipe_of
from sandboxes.refusals import Ended, Refused
from sandboxes.states import State, StateConflict, StopReason
from sandboxes.tokens import Caller


def create(caller: Caller, *, type_name: str | None = None, **wish: object) -> Sandbox:
    """
    Lend one sandbox to the caller and return it RUNNING; wish is what Wish takes.

    Raise Refused for a wish that cannot be met here, CapReached, or lifecycle.StartFailed.
    """
    return create_many(caller, 1, type_name=type_name, **wish)[0]


def create_many(
    caller: Caller, count: int, *, type_name: str | None = None, **wish: object
) -> list[Sandbox]:
    """
    Lend so many sandboxes to the caller, all or none: those that are warm in one transaction.

    Raise what create() raises; then none of them is left.
    """
    deadline = time.monotonic() + settings.PLATFORM.CREATE_TIMEOUT
    wanted = Wish(**{name: value for name, value in wish.items() if value is not None})
    kind = find_type(type_name)
    wanted.check(kind)
    because = wanted.why_not_warm()
    if count > 1:
        check_batch(kind, count, may_be_warm=not because)
    lent = [] if because else claim(caller, kind, wanted, count, deadline=deadline)
    try:
        missing = count - len(lent)
        if missing:
            because = because or _why_none_was_warm(kind)
            lent += _make(caller, kind, wanted, missing, because=because, deadline=deadline)
    except BaseException:
        for sandbox in lent:
            ending.stop_soon(sandbox, reason=StopReason.RELEASED, actor=caller.actor)
        raise
    log_context.note_sandbox(lent[0].name)
    bookkeeping.write_later(_note_answered, lent)
    return lent


def _note_answered(lent: list[Sandbox]) -> None:
    """Write, when their caller knows of them, that no process has to answer for them any more."""
    for sandbox in lent:
        row = Sandbox.objects.filter(pk=sandbox.pk, state=State.RUNNING)
        row.update(worker="", timeline=sandbox.timeline)


def _why_none_was_warm(kind: SandboxType) -> str:
    if Sandbox.objects.warm(kind).exists():
        return "no warm one can be given an environment: its image's guest is too old"
    return "no warm one was ready"


def _make(
    caller: Caller, kind: SandboxType, wish: Wish, count: int, *, because: str, deadline: float
) -> list[Sandbox]:
    def make(_: int) -> Sandbox:
        return _make_one(caller, kind, wish, because=because, deadline=deadline)

    made = together(make, range(count))
    failed = [one for one in made if isinstance(one, Exception)]
    if failed:
        for sandbox in made:
            if isinstance(sandbox, Sandbox):
                ending.stop_soon(sandbox, reason=StopReason.RELEASED, actor=caller.actor)
        raise failed[0]
    return made


def _make_one(
    caller: Caller, kind: SandboxType, wish: Wish, *, because: str, deadline: float
) -> Sandbox:
    if not wish.why_not_warm() and (warm := claim_next(caller, kind, wish, deadline=deadline)):
        return warm
    sandbox = draft(kind)
    sandbox.owner_id = caller.user_id
    sandbox.environment = dict(wish.environment)
    sandbox.was_given_files = bool(wish.files)
    sandbox.labels, sandbox.meta = dict(wish.labels), dict(wish.meta)
    sandbox.expires_at = end_of_life(kind, wish.lifetime)
    sandbox.idle_limit = wish.idle_limit_for(kind)
    sandbox.workspace, sandbox.owns_workspace = workspaces.choose(sandbox.name, wish.mount_dir)
    timeline.say_cold(sandbox.timeline, because)
    try:
        specs.validate(sandbox)
    except UnsupportedSpec as error:
        raise Refused(str(error), field="sandbox_type") from error
    sandbox.session = touch_session(caller.user_id, wish.session_key)
    insert(sandbox, actor=caller.actor)
    log_context.note_sandbox(sandbox.name)
    try:
        lifecycle.start(sandbox, actor=caller.actor, deadline=deadline, files=wish.files)
    except binding.BindingRefused as refused:
        raise Refused(str(refused), field="files") from refused
    except StateConflict:
        raise Ended(
            f"Sandbox {sandbox.name} was ended by another request while it was started."
        ) from None
    return sandbox


def draft(kind: SandboxType) -> Sandbox:
    """Return an unsaved row for a new sandbox of the type, with nothing of a caller's in it."""
    sandbox = Sandbox(
        sandbox_type=kind,
        deployer=deployment.current_name(),
        image=registry.image_of(kind.name, kind.image),
        recipe=recipe_of(kind, deployer=deployment.current_name()),
        timeout_seconds=kind.timeout_seconds or settings.PLATFORM.RUNTIME_SANDBOX_TIMEOUT,
        worker=workers.current(),
        worker_until=lease_end(),
    )
    sandbox.workspace, sandbox.owns_workspace = workspaces.choose(sandbox.name, None)
    return sandbox

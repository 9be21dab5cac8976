"""Give sandboxes up for good."""

from __future__ import annotations

from sandboxes import behind, ending
from sandboxes.actions.finding import find
from sandboxes.actions.together import results, together
from sandboxes.models import Sandbox
from sandboxes.refusals import Unknown
from sandboxes.states import ENDED, State, StopReason
from sandboxes.tokens import Caller


def release(caller: Caller, identity: str) -> None:
    """
    Give a sandbox up for good; one that is unknown or gone is a success.

    An id that leads to another sandbox releases that one; a recycled one is restored no more.
    The removal goes on behind the answer, and is finished by the reaper if need be.
    """
    try:
        sandbox: Sandbox | None = find(caller, identity)
    except Unknown:
        return
    while sandbox is not None:
        forget_files(sandbox, reason=StopReason.RELEASED)
        if sandbox.state not in ENDED:
            ending.stop_soon(sandbox, reason=StopReason.RELEASED, actor=caller.actor)
        # Asked for last: a restoring may have come to its end meanwhile.
        sandbox = Sandbox.objects.filter(replaces=sandbox).first()


def forget_files(sandbox: Sandbox, *, reason: StopReason) -> None:
    """
    Let an ended sandbox be restored no more, and delete what it was kept with.

    One that is still being removed takes its files along; what resists the reaper deletes.
    """
    if Sandbox.objects.restorable().filter(pk=sandbox.pk).update(stop_reason=reason, detail=""):
        sandbox.refresh_from_db()
        if sandbox.state == State.STOPPED:
            behind.submit(ending.sweep_files, sandbox)


def cleanup(caller: Caller) -> int:
    """Release every sandbox that was lent to the caller, recycled ones too; return how many."""
    mine = Sandbox.objects.lent_to(caller)
    for sandbox in mine.restorable():
        forget_files(sandbox, reason=StopReason.CLEANUP)
    left = mine.exclude(state=State.STOPPED)
    return stop_all(list(left), reason=StopReason.CLEANUP, actor=caller.actor)


def stop_all(sandboxes: list[Sandbox], *, reason: StopReason, actor: str) -> int:
    """Stop several at once; return how many are gone. Raise what one raised, after the others."""
    if not sandboxes:
        return 0
    gone = together(lambda sandbox: ending.stop(sandbox, reason=reason, actor=actor), sandboxes)
    return sum(results(gone))

"""Which sandbox serves the callers of one that has ended: the end of a restoring, recorded."""

from __future__ import annotations

from sandboxes.models import Sandbox
from sandboxes.signals import sandbox_moved
from sandboxes.states import StopReason


def take_over(successor: Sandbox) -> None:
    """
    Lead the callers of the one that successor restores to it; inside of a transaction.

    Its workspace belongs to the successor from now on. Those that it had taken over itself
    lead straight on, so that every old id is one step from where its caller is served.
    """
    old = Sandbox.objects.select_for_update().get(pk=successor.restores_id)
    Sandbox.objects.filter(pk=successor.pk).update(owns_workspace=old.owns_workspace)
    successor.owns_workspace = old.owns_workspace
    led = Sandbox.objects.filter(pk=old.pk) | Sandbox.objects.filter(replaced_by=old)
    for ended in list(led):
        Sandbox.objects.filter(pk=ended.pk).update(
            replaced_by=successor, owns_workspace=False, environment={}
        )
        sandbox_moved.send(Sandbox, sandbox=ended)


def give_up_files(sandbox: Sandbox) -> None:
    """Let a restorable one be restored no more: its caller has released it."""
    Sandbox.objects.filter(pk=sandbox.pk).update(
        stop_reason=StopReason.RELEASED, workspace="", environment={}
    )
    sandbox.stop_reason, sandbox.workspace = StopReason.RELEASED, ""
    sandbox_moved.send(Sandbox, sandbox=sandbox)

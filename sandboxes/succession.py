"""Which sandbox serves the callers of one that has ended: the end of a restoring, recorded."""

from __future__ import annotations

from sandboxes.models import Sandbox
from sandboxes.refusals import Ended
from sandboxes.signals import sandbox_moved


def take_over(successor: Sandbox) -> None:
    """
    Lead the callers of the one that successor restores to it; inside of a transaction.

    Its workspace belongs to the successor from now on. Those that it had taken over itself
    lead straight on, so that every old id is one step from where its caller is served. One that
    has taken over before, and was halted since, has nothing to do. Raise Ended where the old one
    was given up meanwhile.
    """
    old = Sandbox.objects.select_for_update().get(pk=successor.restores_id)
    if old.replaced_by_id == successor.pk:
        return
    if not old.can_be_restored:
        raise Ended(f"Sandbox {old.name} has ended ({old.stop_reason}) while it was restored.")
    Sandbox.objects.filter(pk=successor.pk).update(owns_workspace=old.owns_workspace)
    successor.owns_workspace = old.owns_workspace
    led = Sandbox.objects.filter(pk=old.pk) | Sandbox.objects.filter(replaced_by=old)
    for ended in list(led):
        Sandbox.objects.filter(pk=ended.pk).update(
            replaced_by=successor, owns_workspace=False, environment={}
        )
        sandbox_moved.send(Sandbox, sandbox=ended)

"""What ended, and whether it is gone."""

from __future__ import annotations

from pathlib import Path

from sandboxes import actions
from sandboxes.models import PortLease, Sandbox
from sandboxes.states import State
from tests.factories import let_work_behind_end


def release(caller, sandbox):
    """Release it and wait until what goes on behind the answer has ended."""
    actions.release(caller, sandbox.name)
    let_work_behind_end()


def nothing_is_left(fake):
    """Is every sandbox stopped, and neither it nor a port nor a workspace there any more?"""
    let_work_behind_end()
    return (
        not list(fake.inspect_all())
        and not Sandbox.objects.exclude(state=State.STOPPED).exists()
        and not PortLease.objects.exists()
        and not any(Path(row.workspace).exists() for row in Sandbox.objects.all())
    )

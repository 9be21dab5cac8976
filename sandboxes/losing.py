"""What is lost: a sandbox that runs by its row, and has ended by the infrastructure's word."""

from __future__ import annotations

import logging

from deployers.observation import Observation, Phase
from sandboxes import ending
from sandboxes.models import Sandbox
from sandboxes.states import StopReason

logger = logging.getLogger(__name__)

GONE = "it is not there any more"


def why_lost(seen: Observation | None) -> str | None:
    """Return why what was seen (None: nothing) cannot serve any more; None if it still can."""
    if seen is None:
        return GONE
    if seen.phase in (Phase.BROKEN, Phase.ABSENT):
        return seen.detail or GONE
    return None


def give_up(sandbox: Sandbox, why: str, *, actor: str) -> bool:
    """
    Give a lost sandbox up; return whether it has ended, by this call or another.

    What is left of it is removed behind the caller's back. One that another process has moved
    since it was read, and not ended, is left to that process.
    """
    logger.warning("Sandbox %s is lost: %s", sandbox.name, why)
    return ending.stop_soon(
        sandbox, reason=StopReason.LOST, actor=actor, detail=why, unless_moved=True
    )

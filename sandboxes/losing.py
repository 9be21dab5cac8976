"""What is lost: a sandbox that runs by its row, and has ended by the infrastructure's word."""

from __future__ import annotations

import logging

from deployers.observation import Observation, Phase
from sandboxes import ending
from sandboxes.models import Sandbox
from sandboxes.states import ENDED, StopReason

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
    Stop a lost sandbox and remove what is left of it; return whether it has ended.

    One that another process has moved since it was read, and not ended, is left to that process.
    """
    _say(sandbox, why)
    ending.stop(sandbox, reason=StopReason.LOST, actor=actor, detail=why, unless_moved=True)
    return sandbox.state in ENDED


def give_up_soon(sandbox: Sandbox, why: str, *, actor: str) -> bool:
    """Do what give_up() does, the removal behind the caller's back: somebody waits."""
    _say(sandbox, why)
    return ending.stop_soon(
        sandbox, reason=StopReason.LOST, actor=actor, detail=why, unless_moved=True
    )


def _say(sandbox: Sandbox, why: str) -> None:
    logger.warning("Sandbox %s is lost: %s", sandbox.name, why)

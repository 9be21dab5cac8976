"""Listen to the engine's own news of sandboxes that ended, where the deployer has any."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from django.db import Error, close_old_connections

from deployers.errors import DeployerError
from sandboxes import connections, deployment, losing
from sandboxes.models import Sandbox
from sandboxes.states import State

logger = logging.getLogger(__name__)

ACTOR = "watcher"
PAUSE_SECONDS = 2.0
"""Between two attempts to hear an engine that is away; the reaper looks meanwhile."""


def watch(stopping: threading.Event, on_loss: Callable[[], object]) -> None:
    """Give up each sandbox that the engine says has ended, until stopping is set."""
    deployer = deployment.current()
    while deployer.supports_watch and not stopping.is_set():
        try:
            for name in deployer.watch(stopping):
                close_old_connections()
                if look_at(name):
                    on_loss()
                connections.let_go()
        except (DeployerError, Error) as error:
            logger.warning("The engine's events cannot be followed: %s", error)
        except Exception:
            # The outermost frame of its thread; the reaper's passes see what it misses.
            logger.exception("Following the engine's events failed; it is tried again")
        stopping.wait(PAUSE_SECONDS)


def look_at(name: str) -> bool:
    """Look at a sandbox that is said to have ended; return whether it was given up as lost."""
    sandbox = Sandbox.objects.filter(name=name, state__in=(State.WARM, State.RUNNING)).first()
    if sandbox is None:
        return False
    why = losing.why_lost(deployment.of(sandbox).inspect(name))
    return bool(why) and losing.give_up(sandbox, why, actor=ACTOR)

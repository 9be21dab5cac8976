"""The running server: its processes, and what they leave behind at its end."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from typing import BinaryIO

from django.conf import settings
from django.db import connections

from deployers.errors import DeployerError
from pools import maintaining
from sandboxes import actions, deployment, loop, pulling, reaper, registry
from sandboxes.models import Sandbox
from sandboxes.states import State, StopReason
from sandboxplatform import web
from sandboxplatform.processes import Supervisor

logger = logging.getLogger("sandboxplatform")

CLOSING_ROUNDS = 3
KEEPER_SECONDS = 1.0
"""Between two looks at the pools, where no claim and no engine wakes the keeper sooner."""


def serve(listener: socket.socket, lock: BinaryIO) -> None:
    """
    Run the server's processes until a signal, and do what AUTO_CLEANUP says.

    lock is a file that only the parent may keep open.
    """
    from sandboxplatform.asgi import application

    platform = settings.PLATFORM
    # A forked process must not share these with its parent.
    _close_connections()
    deployment.forget()
    processes = {
        "web": web.WebServer(application, listener).run,
        "keeper": _without(listener, _keep),
    }
    if platform.WATCHER_SCAN_INTERVAL:
        processes["reaper"] = _without(listener, _reap)
    patience = platform.SHUTDOWN_TIMEOUT + 2 * web.EXTRA_SECONDS
    farewell = f"requests in flight may still take {platform.SHUTDOWN_TIMEOUT} s"
    Supervisor(processes, patience=patience, farewell=farewell, keep_to_parent=[lock]).run()
    listener.close()
    if platform.AUTO_CLEANUP:
        _remove_all()
    elif kept := Sandbox.objects.live().count():
        logger.info("Sandboxes kept for the next start (AUTO_CLEANUP=False): %d", kept)
    logger.info("The server has closed.")


def _reap() -> None:
    defaults = (actions.find_type(name) for name in settings.PLATFORM.DEFAULT_SANDBOX_TYPE)
    images = [registry.image_of(kind.name, kind.image) for kind in defaults]
    pulling.prefetch(deployment.current(), images)
    loop.run_every(reaper.reap, seconds=settings.PLATFORM.WATCHER_SCAN_INTERVAL)


def _keep() -> None:
    maintaining.maintain(seconds=KEEPER_SECONDS)


def _remove_all() -> None:
    """Remove every sandbox of this installation; what resists is left to the next start."""
    for sandbox in Sandbox.objects.restorable():
        actions.forget_files(sandbox, reason=StopReason.CLEANUP)
    for _ in range(CLOSING_ROUNDS):
        left = list(Sandbox.objects.exclude(state=State.STOPPED))
        if not left:
            break
        logger.info("Removing all sandboxes (AUTO_CLEANUP): %d", len(left))
        actions.stop_all(left, reason=StopReason.CLEANUP, actor="server")
        time.sleep(0.1)
    try:
        deployment.current().remove_shared()
    except DeployerError as error:
        logger.warning("Not everything could be removed: %s", error)
    deployment.current().close()


def _close_connections() -> None:
    """Close every connection to the database, and the pools, which close_all() only gives back to."""
    connections.close_all()
    for connection in connections.all():
        if connection.vendor == "postgresql":
            connection.close_pool()


def _without(listener: socket.socket, run: Callable[[], None]) -> Callable[[], None]:
    """
    Have a process run without the web server's socket.

    It may outlive its parent by as long as a start takes, and the next server could not listen.
    """

    def run_without() -> None:
        listener.close()
        run()

    return run_without

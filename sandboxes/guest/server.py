"""Serve the guest's application until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import socket
from types import FrameType
from typing import Literal

from . import lean_uvicorn, processes
from .app import Guest
from .config import Config
from .spawning import close_on_exec

BACKLOG = 2048
KEEP_ALIVE = 300
"""Seconds; longer than any client keeps an idle connection, so that only clients close them."""

FAREWELL = 2
"""Seconds that answers and uploads in flight get at the end."""


def serve(config: Config) -> int:
    # It logs every lost connection with a traceback; callers are told in words.
    logging.getLogger("mcp").setLevel(logging.CRITICAL)
    close_on_exec()
    listener = _listen(config)
    guest = Guest(config)
    if listener.family != socket.AF_UNIX:
        # Accepted connections inherit it. asyncio sets it only on sockets made with an explicit
        # protocol number, and without it each answer waits 40 ms for a delayed ACK.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server = GuestServer(
        guest,
        lean_uvicorn.Config(
            guest.app,
            http=_protocol(),
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=FAREWELL,
        ),
    )
    try:
        server.run(sockets=[listener])
    finally:
        processes.kill_all()
        guest.close()
    return 0


def _protocol() -> type[asyncio.Protocol] | Literal["h11"]:
    if importlib.util.find_spec("httptools") is None:
        return "h11"
    from .joined import JoiningProtocol

    return JoiningProtocol


def _listen(config: Config) -> socket.socket:
    if config.listener_fd is not None:
        return socket.socket(fileno=config.listener_fd)
    with contextlib.suppress(OSError):  # IPv6 may be compiled in and still switched off
        if socket.has_dualstack_ipv6():
            return socket.create_server(
                ("::", config.port),
                family=socket.AF_INET6,
                backlog=BACKLOG,
                dualstack_ipv6=True,
            )
    return socket.create_server(("0.0.0.0", config.port), backlog=BACKLOG)  # noqa: S104


class GuestServer(lean_uvicorn.Server):
    """uvicorn, except that a signal ends the running tools first and the exit code is 0."""

    def __init__(self, guest: Guest, config: lean_uvicorn.Config) -> None:
        super().__init__(config)
        self._guest = guest
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)
        await self._guest.stopping()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._guest.started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.should_exit = True
        assert self._loop is not None  # noqa: S101  uvicorn catches signals only while serving
        # Calls in flight end with their tools, so that waiting for their answers is short.
        self._loop.call_soon_threadsafe(processes.kill_all)

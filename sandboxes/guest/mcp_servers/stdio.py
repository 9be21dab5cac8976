"""
MCP over a program's stdin and stdout: one JSON-RPC message a line.

The mcp package has such a transport, but keeps the process to itself: what is needed here is its
exit code, the end of its stderr, and the certainty that its whole group is gone.
Protocol: https://modelcontextprotocol.io/specification/2025-06-18/basic/transports#stdio
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
from collections.abc import AsyncIterator, Mapping

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp.types import JSONRPCMessage

from ..capture import Capture
from ..processes import Child
from .configs import ProgramConfig

LONGEST_MESSAGE = 64 * 1024 * 1024
STDERR_LIMIT = 16 * 1024

CLOSING_GRACE = 0.5
"""Seconds a server gets to end by itself once its stdin is closed."""

TERMINATION_GRACE = 1.0

NOTICE = 0.05
"""Seconds within which an exit that broke the connection is seen, and told from one made here."""

logger = logging.getLogger(__name__)

Incoming = SessionMessage | Exception


class Program:
    """A running server program and the two streams a ClientSession wants."""

    def __init__(self, config: ProgramConfig, *, cwd: str, env: Mapping[str, str]) -> None:
        self.errors = Capture(STDERR_LIMIT)
        self._line = bytearray()
        self._deliver: MemoryObjectSendStream[Incoming]
        self.incoming: MemoryObjectReceiveStream[Incoming]
        # Unlimited, because a sink cannot wait; what comes is read at once by the session.
        self._deliver, self.incoming = anyio.create_memory_object_stream(math.inf)
        stdin, self._stdin = os.pipe()
        os.set_blocking(self._stdin, False)
        try:
            self.child = Child(
                [config.command, *config.args],
                cwd=config.cwd or cwd,
                env={**env, **config.env},
                stdin=stdin,
                stdout=self._take,
                stderr=self.errors.add,
            )
        except BaseException:
            os.close(self._stdin)
            self._deliver.close()
            self.incoming.close()
            raise
        finally:
            os.close(stdin)
        self.ended_by_itself = False
        self._ending = False
        self.child.exited.add_done_callback(self._on_exit)

    def _on_exit(self, _exited: object) -> None:
        self.ended_by_itself = not self._ending
        self._deliver.close()

    def _take(self, data: bytes) -> None:
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._line += line
            self._take_line(bytes(self._line))
            self._line.clear()
        self._line += rest
        if len(self._line) > LONGEST_MESSAGE:
            self.errors.add(b"A message on stdout was longer than 64 MiB.\n")
            self._line.clear()
            self._deliver.close()

    def _take_line(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            message = SessionMessage(JSONRPCMessage.model_validate_json(line))
        except ValueError:
            # A server that prints to stdout breaks the protocol; its messages still count.
            self.errors.add(b"(on stdout) " + line[:2000] + b"\n")
            return
        with contextlib.suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
            self._deliver.send_nowait(message)

    async def send_all(self, outgoing: MemoryObjectReceiveStream[SessionMessage]) -> None:
        """Write messages to stdin until there are no more, or nobody reads them."""
        async for message in outgoing:
            text = message.message.model_dump_json(by_alias=True, exclude_none=True)
            try:
                await self._write(text.encode() + b"\n")
            except BrokenPipeError:
                return

    async def _write(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._stdin, view) :]
            except BlockingIOError:
                ready = asyncio.Event()
                loop.add_writer(self._stdin, ready.set)
                try:
                    await ready.wait()
                finally:
                    loop.remove_writer(self._stdin)

    async def end(self) -> None:
        """Close stdin, as the protocol wants, then end whatever is left of the group."""
        if not self.child.exited.done():
            # Give an exit that has just happened the turn of the loop it needs to be noticed.
            await asyncio.wait([self.child.exited], timeout=NOTICE)
        self._ending = True
        os.close(self._stdin)
        await asyncio.wait([self.child.exited], timeout=CLOSING_GRACE)
        await self.child.end(TERMINATION_GRACE)
        self.child.ignore_output()
        self._deliver.close()
        self.incoming.close()


@contextlib.asynccontextmanager
async def connect(
    program: Program,
) -> AsyncIterator[tuple[MemoryObjectReceiveStream[Incoming], MemoryObjectSendStream]]:
    """Connect a ClientSession to a program, and end the program afterwards."""
    send, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(program.send_all, outgoing)
        try:
            yield program.incoming, send
        finally:
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await program.end()
            send.close()
            outgoing.close()

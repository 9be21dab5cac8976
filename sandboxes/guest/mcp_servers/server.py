"""
One MCP server: connected, asked, connected anew when it was lost.

The mcp package builds on task groups, which have to be left in the task that entered them. So
every connection lives in a task of its own, and calls only use its session.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import anyio
import httpx
from mcp import ClientSession, McpError, types
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from ..config import Config
from . import stdio
from .configs import ProgramConfig, ServerConfig
from .watched import WatchedTransport

CLOSING_LIMIT = 3.0
"""Seconds a connection gets to close; then its task is cancelled."""

MOST_PAGES = 100


class ServerFailed(Exception):
    """The server could not be connected, or was lost; says why, without naming it."""


class Server:
    """A named server. start() has to succeed before anything else is asked of it."""

    def __init__(self, name: str, config: ServerConfig, guest: Config) -> None:
        self.name = name
        self.tools: dict[str, types.Tool] = {}
        """By name, as last listed; kept while the connection is lost."""

        self._config = config
        self._guest = guest
        self._starting = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._session: ClientSession | None = None
        self._closing = asyncio.Event()
        self._program: stdio.Program | None = None
        self._broken: httpx.TransportError | None = None
        self._reason = ""

    @property
    def connected(self) -> bool:
        return self._session is not None

    async def start(self, limit: float) -> None:
        """Connect and list the tools, if that is not done; raises ServerFailed."""
        async with self._starting:
            if self.connected:
                return
            await self.stop()
            self._closing.clear()
            self._reason = ""
            self._program = None
            self._broken = None
            ready = asyncio.Event()
            self._task = asyncio.create_task(self._live(ready))
            waiting = asyncio.create_task(ready.wait())
            try:
                await asyncio.wait(
                    {self._task, waiting}, timeout=limit, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                waiting.cancel()
                if not self.connected:
                    timed_out = not self._task.done()
                    await self.stop()
            if not self.connected:
                if timed_out:
                    raise ServerFailed(f"no answer within {limit:g} s{self._last_words()}")
                raise ServerFailed(self._reason)

    async def start_anew(self, guest: Config, limit: float) -> None:
        """Replace a program by one in the environment of this config; raises ServerFailed."""
        self._guest = guest
        if isinstance(self._config, ProgramConfig):
            await self.stop()
            await self.start(limit)

    async def stop(self) -> None:
        """Close the connection; of a program, end the whole group."""
        task, self._task = self._task, None
        if task is None:
            return
        self._closing.set()
        if not self.connected:
            task.cancel()
        await asyncio.wait({task}, timeout=CLOSING_LIMIT)
        if not task.done():
            task.cancel()
            await asyncio.wait({task})

    async def refresh(self, limit: float) -> None:
        """List the tools anew; raises ServerFailed."""
        session = self._session
        if session is None:
            raise ServerFailed(self._reason)
        try:
            await self._ask(self._list_tools(session), limit)
        except McpError as error:
            raise ServerFailed(error.error.message) from error

    async def call(self, tool: str, arguments: dict[str, Any], limit: float) -> dict[str, Any]:
        """
        Call a tool and return its whole result.

        Raises ServerFailed when the server was lost meanwhile, TimeoutError, and McpError for
        an error that the server reports instead of a result.
        """
        session = self._session
        if session is None:
            raise ServerFailed(self._reason)
        request = types.ClientRequest(
            types.CallToolRequest(
                params=types.CallToolRequestParams(name=tool, arguments=arguments)
            )
        )
        # Not session.call_tool(): that drops a result whose structuredContent misses its schema.
        sending = session.send_request(
            request,
            types.CallToolResult,
            request_read_timeout_seconds=timedelta(seconds=limit),
        )
        result = await self._ask(sending, limit + 1)
        return result.model_dump(mode="json")

    async def _ask(self, asking: Any, limit: float) -> Any:
        """Await an exchange with the server, but not longer than the connection lives."""
        task = self._task
        assert task is not None  # noqa: S101  there is a session
        exchange = asyncio.ensure_future(asking)
        try:
            await asyncio.wait({exchange, task}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if exchange.done():
                return await self._answer(exchange, task)
            if task.done():
                raise ServerFailed(self._reason)
            raise TimeoutError
        finally:
            if not exchange.done():
                exchange.cancel()
                await asyncio.wait({exchange})

    async def _answer(self, exchange: asyncio.Future[Any], task: asyncio.Task[None]) -> Any:
        try:
            return exchange.result()
        except McpError as error:
            if error.error.code == httpx.codes.REQUEST_TIMEOUT:
                raise TimeoutError from error
            if error.error.code != types.CONNECTION_CLOSED:
                raise
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            pass
        # The session noticed first; what ended the connection is known a moment later.
        self._closing.set()
        await asyncio.wait({task}, timeout=CLOSING_LIMIT)
        raise ServerFailed(self._reason)

    async def _live(self, ready: asyncio.Event) -> None:
        """Hold the connection until it is to be closed or breaks. The task of a connection."""
        reason = "the connection was closed"
        try:
            async with self._connected() as streams, ClientSession(*streams) as session:
                await session.initialize()
                await self._list_tools(session)
                self._session = session
                ready.set()
                await self._closing.wait()
                if self._broken is not None:
                    raise self._broken
        except Exception as error:
            reason = _cause(error)
        finally:
            self._session = None
            self._reason = self._program_ending() or f"{reason}{self._last_words()}"

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[tuple[Any, Any]]:
        config = self._config
        if isinstance(config, ProgramConfig):
            self._program = stdio.Program(
                config, cwd=self._guest.workspace, env=self._guest.child_env
            )
            self._program.child.exited.add_done_callback(lambda _: self._closing.set())
            async with stdio.connect(self._program) as streams:
                yield streams
        elif config.streamable:
            timeout = httpx.Timeout(config.timeout, read=config.read_timeout)
            async with (
                httpx.AsyncClient(
                    headers=dict(config.headers),
                    timeout=timeout,
                    transport=WatchedTransport(self._on_broken_answer),
                ) as client,
                streamable_http_client(config.url, http_client=client) as streams,
            ):
                yield streams[:2]
        else:
            async with sse_client(
                config.url,
                headers=dict(config.headers),
                timeout=config.timeout,
                sse_read_timeout=config.read_timeout,
            ) as streams:
                yield streams

    def _on_broken_answer(self, error: httpx.TransportError) -> None:
        self._broken = error
        self._closing.set()

    async def _list_tools(self, session: ClientSession) -> None:
        tools: dict[str, types.Tool] = {}
        cursor = None
        for _ in range(MOST_PAGES):
            params = types.PaginatedRequestParams(cursor=cursor)
            page = await session.list_tools(params=params)
            for tool in page.tools:
                tools.setdefault(tool.name, tool)
            cursor = page.nextCursor
            if not cursor:
                break
        self.tools = tools

    def _program_ending(self) -> str:
        """Say how the program ended, if it ended by itself."""
        program = self._program
        if program is None or not program.ended_by_itself:
            return ""
        code = program.child.exited.result()
        how = f"exit code {code}" if code >= 0 else f"signal {-code}"
        return f"the program ended with {how}{self._last_words()}"

    def _last_words(self) -> str:
        words = self._program.errors.text().strip()[-800:] if self._program else ""
        return f"; it last said: {words}" if words else ""


def _cause(error: BaseException) -> str:
    """Say in a few words what lies at the bottom of an error, also of a group of them."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, httpx.HTTPStatusError):
        response = error.response
        return f"{response.request.url} answered {response.status_code}"
    if isinstance(error, httpx.HTTPError):
        return f"no connection to the address: {str(error) or type(error).__name__}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'the program'}: {error.strerror}"
    if isinstance(error, McpError):
        return error.error.message
    return f"{type(error).__name__}: {error}"

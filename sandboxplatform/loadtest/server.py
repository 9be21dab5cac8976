"""A server under test: its calls as bytes made before, and what was created there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable
from typing import TypeVar

from sandboxplatform.loadtest.connection import Address, CallFailed, Connection
from sandboxplatform.loadtest.pool import Pool

CALL_SECONDS = 30.0
CREATE_SECONDS = 180.0
"""More than the server's own CREATE_TIMEOUT and than the reference takes for a burst, so that
no create is given up whose name is then never learnt."""

RELEASES_AT_ONCE = 8
CLOSING_SECONDS = 20.0
"""How long releases are tried at the end on a server that cannot be reached, or restarts."""

FAILED_TOOL = (b'"isError":true', b'"isError": true')

Result = TypeVar("Result")


def failed_tool(body: bytes) -> CallFailed | None:
    """Tell whether a tool's result says that it failed, without the cost of parsing it."""
    if any(mark in body for mark in FAILED_TOOL):
        return CallFailed("tool error", body[:300].decode(errors="replace"))
    return None


class Server:
    """One server that speaks the wire, ours or the reference's."""

    def __init__(self, side: str, url: str, token: str, *, sandbox_type: str) -> None:
        self.side = side
        self.url = url
        self.address = Address.of(url)
        self.created: set[str] = set()
        self.sandbox_type = sandbox_type
        self._token = token
        self._unfinished: set[asyncio.Task[object]] = set()
        self.connection = Connection(self.address)
        self.pool = Pool(self)

    def get(self, path: str) -> bytes:
        return self.address.request("GET", path, self._token)

    def request(self, route: str, **fields: object) -> bytes:
        return self._send("POST", f"/{route}", fields)

    def change(self, path: str, **fields: object) -> bytes:
        return self._send("PATCH", path, fields)

    def _send(self, method: str, path: str, fields: dict[str, object]) -> bytes:
        return self.address.request(method, path, self._token, json.dumps(fields).encode())

    def tool(self, name: str, tool: str, *, route: str = "call_tool", **arguments: str) -> bytes:
        return self.request(route, identity=name, tool_name=tool, arguments=arguments)

    async def call(
        self, request: bytes, connection: Connection | None = None, *, limit: float = CALL_SECONDS
    ) -> bytes:
        """Make a call that may be a tool's; raise CallFailed where the tool failed."""
        body = await (connection or self.connection).call(request, limit=limit)
        if error := failed_tool(body):
            raise error
        return body

    async def data(self, request: bytes, connection: Connection | None = None, **limits: float):
        """Return the answer's data, decoded."""
        body = await self.call(request, connection, **limits)
        try:
            data = json.loads(body)["data"]
        except (ValueError, KeyError, TypeError) as error:
            raise CallFailed(
                "answer not understood", body[:200].decode(errors="replace")
            ) from error
        # The reference wraps a record in a JSON text of its own.
        return json.loads(data) if isinstance(data, str) and data[:1] == "{" else data

    async def create(
        self, connection: Connection | None = None, *, route: str = "create", **fields: object
    ) -> str:
        """Create a sandbox that is nobody's yet; being cancelled does not lose its name."""
        return await self.see_through(self._create(connection, route, fields))

    async def claim(self, connection: Connection | None = None) -> str:
        """Create one from the pool: the reference's plain create never looks there."""
        return await self.create(connection, route="create_from_pool")

    async def see_through(self, work: Awaitable[Result]) -> Result:
        """Await what must not be left half done: it goes on when whoever awaits it is cancelled."""
        task = asyncio.ensure_future(work)
        self._unfinished.add(task)
        task.add_done_callback(self._unfinished.discard)
        return await asyncio.shield(task)

    async def finish(self) -> None:
        """Wait for what goes on after a cancellation; its connections must stay open so long."""
        await asyncio.gather(*self._unfinished, return_exceptions=True)

    async def _create(
        self, connection: Connection | None, route: str, fields: dict[str, object]
    ) -> str:
        request = self.request(route, sandbox_type=self.sandbox_type, **fields)
        name = await self.data(request, connection, limit=CREATE_SECONDS)
        if not isinstance(name, str):
            raise CallFailed("no sandbox available")
        self.created.add(name)
        return name

    async def release(self, name: str, connection: Connection | None = None) -> None:
        await self.call(self.request("release", identity=name), connection)
        self.created.discard(name)

    async def close(self) -> None:
        """Release whatever was created, also by a create on its way, and put the pool back."""
        await self.finish()
        deadline = time.monotonic() + CLOSING_SECONDS
        while await self._cannot_be_reached() and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
        with contextlib.suppress(CallFailed):  # target_before tells
            await self.pool.put_back()
        names = list(self.created)

        async def release_some() -> None:
            connection = Connection(self.address)
            while names:
                try:
                    await self.release(names.pop(), connection)
                except CallFailed:
                    continue
            connection.close()

        await asyncio.gather(*(release_some() for _ in range(RELEASES_AT_ONCE)))
        self.connection.close()
        self.pool.close()

    async def _cannot_be_reached(self) -> bool:
        """Is there something to be undone, and nobody who hears of it?"""
        if not self.created and self.pool.target_before is None:
            return False
        try:
            await self.call(self.get("/health"))
        except CallFailed as error:
            return not error.kind.startswith("HTTP 4")
        return False

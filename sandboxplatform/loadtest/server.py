"""A server under test: its calls as bytes made before, and what was created there."""

from __future__ import annotations

import asyncio
import json

from sandboxplatform.loadtest.connection import Address, CallFailed, Connection

CALL_SECONDS = 30.0
CREATE_SECONDS = 75.0
"""More than the server's own CREATE_TIMEOUT, so that no create is given up whose name is then
never learnt."""

RELEASES_AT_ONCE = 8
FAILED_TOOL = (b'"isError":true', b'"isError": true')


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
        self._token = token
        self._sandbox_type = sandbox_type
        self._creating: set[asyncio.Task[str]] = set()
        self.connection = Connection(self.address)

    def get(self, path: str) -> bytes:
        return self.address.request("GET", path, self._token)

    def request(self, route: str, **fields: object) -> bytes:
        body = json.dumps(fields).encode()
        return self.address.request("POST", f"/{route}", self._token, body)

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

    async def create(self, connection: Connection | None = None) -> str:
        """Create a sandbox that is nobody's yet; being cancelled does not lose its name."""
        task = asyncio.ensure_future(self._create(connection))
        self._creating.add(task)
        task.add_done_callback(self._creating.discard)
        return await asyncio.shield(task)

    async def _create(self, connection: Connection | None) -> str:
        request = self.request("create", sandbox_type=self._sandbox_type)
        name = await self.data(request, connection, limit=CREATE_SECONDS)
        if not isinstance(name, str):
            raise CallFailed("no sandbox available")
        self.created.add(name)
        return name

    async def release(self, name: str, connection: Connection | None = None) -> None:
        await self.call(self.request("release", identity=name), connection)
        self.created.discard(name)

    async def close(self) -> None:
        """Release whatever was created, also by a create that is still on its way."""
        await asyncio.gather(*self._creating, return_exceptions=True)
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

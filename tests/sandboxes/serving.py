"""The ASGI application behind a real web server of this process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import uvicorn
from asgiref.sync import sync_to_async

from sandboxes import directory, guests, tokens
from sandboxes.tokens import BEARER_USER, Caller
from tests.factories import make_caller


class Client:
    """Calls the wire as the SDK does."""

    def __init__(self, session: aiohttp.ClientSession, url: str, caller: Caller) -> None:
        self.session, self.url, self.caller = session, url, caller

    async def rpc(self, name: str, **fields: object) -> tuple[int, object]:
        """Return status, and data or detail."""
        async with self.session.post(f"{self.url}/{name}", json=fields) as answer:
            body = await answer.json()
            return answer.status, body["data"] if answer.status == 200 else body["detail"]

    async def shell(self, identity: str, command: str) -> tuple[int, str]:
        """Return status, and standard output or detail."""
        status, answer = await self.rpc(
            "call_tool",
            identity=identity,
            tool_name="run_shell_command",
            arguments={"command": command},
        )
        return status, answer["content"][0]["text"] if status == 200 else answer

    async def proxied(self, method: str, identity: str, path: str, **options: object):
        """Return status and body."""
        url = f"{self.url}/proxy/{identity}/{path}"
        async with self.session.request(method, url, **options) as answer:
            return answer.status, await answer.read()


@asynccontextmanager
async def serving(token: str) -> AsyncIterator[Client]:
    """Serve, and yield a client of the bearer token's user."""
    from sandboxplatform.asgi import application

    directory.clear()
    tokens.forget()
    caller = await sync_to_async(make_caller)(BEARER_USER)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        config = uvicorn.Config(
            application, lifespan="off", ws="websockets-sansio", log_level="error"
        )
        server = uvicorn.Server(config)
        task = asyncio.ensure_future(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        headers = {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            yield Client(session, f"http://127.0.0.1:{port}", caller)
        server.should_exit = True
        await task
    await guests.connections().close()

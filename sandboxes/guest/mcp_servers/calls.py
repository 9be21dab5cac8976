"""Call a tool so that every failure is a result an agent can read."""

from __future__ import annotations

import asyncio
from typing import Any

from mcp import McpError

from .. import results
from .server import Server, ServerFailed


async def call_in_words(
    server: Server, tool: str, arguments: dict[str, Any], limit: float
) -> dict[str, Any]:
    """Call a tool, connecting anew if need be; whatever goes wrong becomes a result that says so."""
    about = f"{tool} (MCP server {server.name})"
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit
    try:
        await server.start(limit)
    except ServerFailed as failed:
        return results.failure(f"{about}: the server is down and did not start again: {failed}.")
    try:
        return await server.call(tool, arguments, max(0.1, deadline - loop.time()))
    except ServerFailed as failed:
        return results.failure(
            f"{about}: the server was lost during the call: {failed}. The next call starts it anew."
        )
    except TimeoutError:
        return results.failure(f"{about}: timed out after {results.seconds(limit)}.")
    except McpError as error:
        return results.failure(f"{about}: {error.error.message}")

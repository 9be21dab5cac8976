"""The endpoints for MCP servers. Loads the mcp package with the first server."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from ..bodies import FLAG, OBJECT, TEXT, Field, read_fields
from ..config import Config
from ..exchange import answer, unless_caller_leaves
from .configs import ServerConfig, parse_configs

if TYPE_CHECKING:
    from .server import Server

LISTING_LIMIT = 10.0
"""Seconds a server gets to list its tools; after that its last list counts."""

logger = logging.getLogger(__name__)


class McpServers:
    def __init__(self, config: Config) -> None:
        self._config = config
        self._servers: dict[str, Server] = {}
        self._adding = asyncio.Lock()
        self._loading: asyncio.Task[None] | None = None
        self._bound = False

    def load_configured(self) -> None:
        """Begin to start the servers that were configured when the image was built."""
        if self._config.mcp_servers_file:
            self._loading = asyncio.create_task(self._load(self._config.mcp_servers_file))

    def use(self, config: Config) -> None:
        """
        Start servers from now on in the environment of this config.

        Those there are already are started anew in the background, and whoever asks for tools
        waits for that. Configured ones that did not start get another chance: what they lacked
        may be in the environment now.
        """
        self._config = config
        self._bound = True
        if self._loading is not None or self._servers:
            self._loading = asyncio.create_task(self._start_anew(self._loading))

    async def add_servers(self, request: Request) -> Response:
        fields = await read_fields(
            request, Field("server_configs", OBJECT), Field("overwrite", FLAG, default=False)
        )
        configs = parse_configs(fields["server_configs"])
        await unless_caller_leaves(request, self._add(configs, overwrite=fields["overwrite"]))
        return PlainTextResponse("OK")

    async def list_tools(self, request: Request) -> Response:
        listing = await unless_caller_leaves(request, self._list())
        return answer(listing)

    async def call_tool(self, request: Request) -> Response:
        fields = await read_fields(
            request, Field("tool_name", TEXT), Field("arguments", OBJECT, default=None)
        )
        call = self._call(fields["tool_name"], fields["arguments"] or {})
        return answer(await unless_caller_leaves(request, call))

    async def close(self) -> None:
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait({self._loading})
        await asyncio.gather(*(server.stop() for server in self._servers.values()))

    async def _load(self, path: str) -> None:
        try:
            text = await asyncio.to_thread(_read, path)
            await self._add(parse_configs(json.loads(text)), overwrite=False)
        except HTTPException as error:
            logger.warning("MCP servers of %s: %s", path, self._loggable(error.detail))
        except (OSError, ValueError) as error:
            logger.warning("MCP servers of %s cannot be read: %s", path, error)

    async def _start_anew(self, loading: asyncio.Task[None] | None) -> None:
        if loading is not None:
            loading.cancel()
            await asyncio.wait({loading})
        async with self._adding:
            await asyncio.gather(*map(self._try_start_anew, self._servers.values()))
        if self._config.mcp_servers_file:
            await self._load(self._config.mcp_servers_file)

    async def _try_start_anew(self, server: Server) -> None:
        from .server import ServerFailed

        try:
            await server.start_anew(self._config, self._config.call_limit)
        except ServerFailed as failed:
            reason = self._loggable(failed)
            logger.warning("MCP server %s did not start anew: %s", server.name, reason)

    def _loggable(self, reason: object) -> object:
        """Return a reason, except where a program's last words in it may be a caller's keys."""
        return "the reason is for the caller only." if self._bound else reason

    async def _loaded(self) -> None:
        # Again, because a loading may have been given up for another.
        while self._loading is not None and not self._loading.done():
            await asyncio.wait({self._loading})

    async def _add(self, configs: dict[str, ServerConfig], *, overwrite: bool) -> None:
        """
        Start servers, all at once, and keep those that work.

        Raises HTTPException 502 that names every one that did not start, and why.
        """
        from .server import Server

        async with self._adding:
            wanted = [
                Server(name, config, self._config)
                for name, config in configs.items()
                if overwrite or name not in self._servers
            ]
            try:
                reasons = await asyncio.gather(*(self._try_start(server) for server in wanted))
            except asyncio.CancelledError:
                await asyncio.gather(*(server.stop() for server in wanted))
                raise
            for server, reason in zip(wanted, reasons, strict=True):
                if reason is None:
                    replaced = self._servers.get(server.name)
                    self._servers[server.name] = server
                    if replaced is not None:
                        await replaced.stop()
        failed = [
            f"'{server.name}': {reason}"
            for server, reason in zip(wanted, reasons, strict=True)
            if reason is not None
        ]
        if failed:
            kept = ", ".join(self._servers) or "none"
            raise HTTPException(
                502, f"MCP servers that did not start: {'. '.join(failed)}. Running: {kept}."
            )

    async def _try_start(self, server: Server) -> str | None:
        """Return why a server did not start, None if it did."""
        from .server import ServerFailed

        try:
            await server.start(self._config.call_limit)
        except ServerFailed as failed:
            return str(failed)
        return None

    async def _list(self) -> dict[str, Any]:
        await self._loaded()
        await self._refresh()
        return {
            server.name: {name: _described(tool) for name, tool in server.tools.items()}
            for server in self._servers.values()
        }

    async def _refresh(self) -> None:
        """List every server's tools anew; of one that cannot now, the last list stays."""
        from .server import ServerFailed

        async def refresh(server: Server) -> None:
            try:
                await server.refresh(min(LISTING_LIMIT, self._config.call_limit))
            except (ServerFailed, TimeoutError) as error:
                reason = self._loggable(error)
                logger.warning("MCP server %s cannot list its tools: %s", server.name, reason)

        await asyncio.gather(*(refresh(server) for server in self._servers.values()))

    async def _call(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        from .calls import call_in_words

        await self._loaded()
        server = self._server_of(tool)
        if server is None:
            await self._refresh()
            server = self._server_of(tool)
        if server is None:
            raise HTTPException(404, self._unknown(tool))
        return await call_in_words(server, tool, arguments, self._config.call_limit)

    def _server_of(self, tool: str) -> Server | None:
        return next((found for found in self._servers.values() if tool in found.tools), None)

    def _unknown(self, tool: str) -> str:
        if not self._servers:
            return f"There is no tool '{tool}': no MCP server has been added."
        servers = ", ".join(f"{name} ({len(it.tools)})" for name, it in self._servers.items())
        return f"There is no tool '{tool}'. MCP servers and how many tools they have: {servers}."


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _described(tool: Any) -> dict[str, Any]:
    schema = tool.inputSchema
    return {
        "name": tool.name,
        "json_schema": {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description or "",
                # The rest of a schema counts, too: properties may refer to its $defs.
                "parameters": {
                    **schema,
                    "type": "object",
                    "properties": schema.get("properties", {}),
                    "required": schema.get("required", []),
                },
            },
        },
    }

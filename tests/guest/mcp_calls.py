"""The test server of tools, and calls of a guest about it."""

from __future__ import annotations

import sys
from pathlib import Path

TOOLS = str(Path(__file__).parent / "servers/tools.py")
STDIO = {"command": sys.executable, "args": [TOOLS]}


def add(guest, overwrite=False, **servers):
    return guest.post(
        "mcp/add_servers", server_configs={"mcpServers": servers}, overwrite=overwrite
    )


def tools(guest):
    return guest.http.get("/fastapi/mcp/list_tools").json()

"""A small MCP server for tests: tools.py stdio | sse PORT | streamable-http PORT."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from pathlib import Path

from mcp.server.fastmcp import FastMCP
from mcp.types import CallToolResult, EmbeddedResource, ImageContent, TextContent
from mcp.types import TextResourceContents as Text
from pydantic import AnyUrl, BaseModel

transport = sys.argv[1] if len(sys.argv) > 1 else "stdio"
port = int(sys.argv[2]) if len(sys.argv) > 2 else 0
server = FastMCP("tools", port=port, log_level="CRITICAL")


class Point(BaseModel):
    x: int
    y: int


@server.tool()
def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def move(point: Point) -> Point:
    return Point(x=point.x + 1, y=point.y + 1)


@server.tool()
def environment() -> dict[str, str]:
    return dict(os.environ)


@server.tool()
def place() -> str:
    return f"{os.getpid()} {Path.cwd()}"


@server.tool()
def everything() -> CallToolResult:
    return CallToolResult(
        content=[
            TextContent(type="text", text="words"),
            ImageContent(
                type="image", data=base64.b64encode(b"png").decode(), mimeType="image/png"
            ),
            EmbeddedResource(
                type="resource", resource=Text(uri=AnyUrl("file:///a"), text="resource")
            ),
        ],
        structuredContent={"answer": 42},
    )


@server.tool()
def fail() -> str:
    raise ValueError("the tool's own reason")


@server.tool()
def die() -> str:
    sys.stderr.write("last words\n")
    sys.stderr.flush()
    os._exit(4)


@server.tool()
def sleep(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


@server.tool()
def start_child() -> int:
    return subprocess.Popen(["sleep", "60"]).pid


@server.tool()
def shout() -> str:
    """Print to stdout, which belongs to the protocol."""
    print("not a message", flush=True)
    return "said"


server.run(transport)

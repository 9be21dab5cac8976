"""What every endpoint needs of the exchange with its caller."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response


def answer(content: Any, status_code: int = 200) -> Response:
    """Answer in JSON. Unlike starlette's own class it passes on NaN, which MCP tools return."""
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return Response(body.encode(), status_code, media_type="application/json")


async def unless_caller_leaves(request: Request, work: Coroutine[Any, Any, Any]) -> Any:
    """
    Do the work, but cancel it when the caller hangs up.

    The body must have been read before. Raises ClientDisconnect, which nobody will see, once
    the cancelled work has cleaned up.
    """
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_caller_leaves(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        leaving.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait({working})


async def _caller_leaves(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass

"""What every endpoint needs of the exchange with its caller."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

# json.dumps would make a new encoder for every answer that is not in its default style.
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def answer(content: Any, status_code: int = 200) -> Response:
    """Answer in JSON. Unlike starlette's own class it passes on NaN, which MCP tools return."""
    return Response(_to_json(content).encode(), status_code, media_type="application/json")


async def unless_caller_leaves(request: Request, work: Coroutine[Any, Any, Any]) -> Any:
    """
    Do the work, but cancel it when the caller hangs up.

    The body must have been read before. Raises ClientDisconnect, which nobody will see, once
    the cancelled work has cleaned up.
    """
    leaving = asyncio.create_task(_caller_leaves(request))
    # The work stays in the caller's own task: a second one would cost more than it does.
    current = asyncio.current_task()
    assert current is not None  # noqa: S101  coroutines run in tasks here
    left = over = False

    def cancel_work(ended: asyncio.Task[None]) -> None:
        nonlocal left
        # Once it is on its way, it comes even when the work has ended in the meantime.
        if not (over or ended.cancelled()):
            left = True
            current.cancel()

    leaving.add_done_callback(cancel_work)
    try:
        return await work
    except asyncio.CancelledError:
        if left and not current.uncancel():
            raise ClientDisconnect from None
        raise
    finally:
        over = True
        leaving.cancel()


async def _caller_leaves(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass

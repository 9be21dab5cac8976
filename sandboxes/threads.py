"""Ask the database from the event loop, in a thread that holds no connection afterwards."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from asgiref.sync import sync_to_async
from django.db import close_old_connections

Result = TypeVar("Result")


async def in_thread(
    ask: Callable[..., Result], *args: object, executor: Executor | None = None, **kwargs: object
) -> Result:
    """
    Call ask in a thread; its connection goes back to the pool, or stays while it is fresh.

    executor has threads of its own for what takes long; the event loop's are for queries.
    """

    def run() -> Result:
        close_old_connections()
        try:
            return ask(*args, **kwargs)
        finally:
            close_old_connections()

    return await sync_to_async(run, thread_sensitive=False, executor=executor)()

"""
Call from the event loop what blocks, in a thread that holds no database connection afterwards.

Queries have the event loop's own few threads; what waits for an engine has others.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeVar

from asgiref.sync import sync_to_async
from django.db import close_old_connections

Result = TypeVar("Result")

engine_threads = ThreadPoolExecutor(64, thread_name_prefix="engine")
"""For in_thread(): a restoring takes as long as a start, and an engine may hang for its limit."""


async def in_thread(
    ask: Callable[..., Result], *args: object, executor: Executor | None = None, **kwargs: object
) -> Result:
    """
    Call ask in a thread; its connection goes back to the pool, or stays while it is fresh.

    executor is engine_threads for what may wait for an engine, and must not keep queries waiting.
    """

    def run() -> Result:
        close_old_connections()
        try:
            return ask(*args, **kwargs)
        finally:
            close_old_connections()

    return await sync_to_async(run, thread_sensitive=False, executor=executor)()

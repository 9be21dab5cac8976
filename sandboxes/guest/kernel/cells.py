"""The endpoint of the kernel: one cell at a time, each within its limit."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from .. import results
from ..bodies import NUMBER, TEXT, Field, read_fields
from ..config import OUTPUT_LIMIT, Config
from ..exchange import answer, unless_caller_leaves
from .outputs import CellOutput
from .process import Kernel, KernelFailed

INTERRUPT_GRACE = 2.5
"""Seconds an interrupted cell gets before its kernel is killed."""

START_LIMIT = 60.0
"""Seconds a kernel may take to start, whatever the cell that needs it first has left."""

EXIT_GRACE = 2.0
"""Seconds a kernel that was told to exit gets to do so."""


class Cells:
    def __init__(self, config: Config) -> None:
        self._config = config
        self._turn = asyncio.Lock()
        self._kernel: Kernel | None = None
        self._starting: asyncio.Task[Kernel] | None = None
        self._replacing: asyncio.Task[None] | None = None

    def use(self, config: Config) -> None:
        """
        Run cells from now on in the environment of this config.

        A kernel that runs or starts is replaced in the background, and later cells wait for
        that: what a process was started with cannot be changed in it.
        """
        self._config = config
        if self._kernel is not None or self._starting is not None:
            self._replacing = asyncio.create_task(self._replace())

    async def run_ipython_cell(self, request: Request) -> Response:
        fields = await read_fields(
            request,
            Field("code", TEXT),
            Field("timeout", NUMBER, default=None, above_zero=True),
        )
        limit = fields["timeout"] or self._config.call_limit
        call = self._run(fields["code"], limit)
        return answer(await unless_caller_leaves(request, call))

    def close(self) -> None:
        """Leave no files behind; the process has been killed already."""
        if self._kernel is not None:
            self._kernel.remove_directory()
        if self._starting is not None and _succeeded(self._starting):
            self._starting.result().remove_directory()

    async def _replace(self) -> None:
        async with self._turn:
            starting, self._starting = self._starting, None
            if starting is not None:
                starting.cancel()
                await asyncio.wait({starting})
                if _succeeded(starting):
                    await starting.result().end()
            if self._kernel is not None:
                await self._drop(self._kernel)
            self._starting = self._begin_to_start()

    async def _run(self, code: str, limit: float) -> dict[str, Any]:
        deadline = asyncio.get_running_loop().time() + limit
        try:
            async with asyncio.timeout(limit):
                if self._replacing is not None:
                    await asyncio.wait({self._replacing})
                await self._turn.acquire()
        except TimeoutError:
            return results.failure(
                f"run_ipython_cell: timed out after {results.seconds(limit)} of waiting for an "
                "earlier cell; this one was not run."
            )
        try:
            return await self._run_in_turn(code, limit, deadline)
        except KernelFailed as failed:
            return results.failure(f"run_ipython_cell: the IPython kernel did not start: {failed}")
        finally:
            self._turn.release()

    async def _run_in_turn(self, code: str, limit: float, deadline: float) -> dict[str, Any]:
        output = CellOutput(OUTPUT_LIMIT)
        kernel = await self._running_kernel(output, deadline)
        execution = kernel.execute(code, output.receive)
        try:
            in_time = await kernel.finish(execution, _until(deadline))
            if not in_time:
                interrupted = await self._interrupt(kernel, execution)
        except asyncio.CancelledError:
            # The caller left; the next cell should find the kernel free.
            await self._interrupt(kernel, execution)
            raise
        if not in_time:
            output.warn(_timeout_message(limit, state_kept=interrupted))
        elif execution.reply is None:
            output.warn(
                f"run_ipython_cell: the IPython kernel died during this cell: {kernel.ending()} "
                "Its variables are lost; the next cell starts a fresh one."
            )
            await self._drop(kernel)
        else:
            output.take_reply(execution.reply)
            await self._let_exit(kernel, execution.reply)
        ok = in_time and execution.reply is not None and execution.reply["status"] == "ok"
        return output.result(failed=not ok)

    async def _running_kernel(self, output: CellOutput, deadline: float) -> Kernel:
        if self._kernel is not None and await self._kernel.has_died():
            output.warn(
                "run_ipython_cell: the IPython kernel had died since the last cell: "
                f"{self._kernel.ending()} Its variables are lost; this is a fresh one."
            )
            await self._drop(self._kernel)
        if self._kernel is None:
            self._kernel = await self._started_kernel(deadline)
        return self._kernel

    async def _started_kernel(self, deadline: float) -> Kernel:
        """Start a kernel; where a cell is too short to see it ready, the next one finds it."""
        if self._starting is None:
            self._starting = self._begin_to_start()
        await asyncio.wait({self._starting}, timeout=_until(deadline))
        if not self._starting.done():
            raise KernelFailed(
                "it is still starting. Run the cell again, or with a larger timeout."
            )
        started, self._starting = self._starting, None
        return started.result()

    def _begin_to_start(self) -> asyncio.Task[Kernel]:
        starting = asyncio.create_task(Kernel.start(self._config, START_LIMIT))
        # Looked at, so that asyncio does not log it when no other cell comes.
        starting.add_done_callback(lambda task: task.cancelled() or task.exception())
        return starting

    async def _interrupt(self, kernel: Kernel, execution: Any) -> bool:
        """Stop a cell; return whether the kernel survived it."""
        kernel.interrupt()
        if await kernel.finish(execution, INTERRUPT_GRACE) and not kernel.exited.done():
            return True
        await self._drop(kernel)
        return False

    async def _let_exit(self, kernel: Kernel, reply: dict[str, Any]) -> None:
        """After `exit`, wait for the end, so that the next cell is not sent to a dying kernel."""
        if any(part.get("source") == "ask_exit" for part in reply.get("payload") or ()):
            await asyncio.wait([kernel.exited], timeout=EXIT_GRACE)
            await self._drop(kernel)

    async def _drop(self, kernel: Kernel) -> None:
        self._kernel = None
        await kernel.end()


def _succeeded(task: asyncio.Task[Kernel]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _until(deadline: float) -> float:
    return max(0.0, deadline - asyncio.get_running_loop().time())


def _timeout_message(limit: float, *, state_kept: bool) -> str:
    outcome = (
        "the cell was interrupted, variables are kept."
        if state_kept
        else "the cell did not react to an interrupt, so its kernel was killed: variables are "
        "lost, the next cell starts a fresh one."
    )
    return f"run_ipython_cell: timed out after {results.seconds(limit)}; {outcome}"

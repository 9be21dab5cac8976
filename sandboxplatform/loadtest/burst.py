"""Many creates at once, and how long a pool takes to be full again after them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sandboxplatform.loadtest import names
from sandboxplatform.loadtest.connection import CallFailed, Connection
from sandboxplatform.loadtest.pool import NotTold, Pool
from sandboxplatform.loadtest.run import FIRST_CALL_SECONDS, Run
from sandboxplatform.loadtest.server import CALL_SECONDS, Server

ROUNDS = 3
AS_IT_IS = 20


async def bursts(run: Run) -> None:
    """From a pool of as many as are asked for, then from the pool as it is."""
    count = run.options.burst
    async with _of_at_least(run.ours.pool, count) as refusal:
        await _rounds(run, count, names.burst(count))
    if refusal:
        run.report.row(names.burst_ready(names.burst(count))).note += f"; {refusal}"
    run.give_reference_time()
    fewer = min(AS_IT_IS, count)
    await _rounds(run, fewer, names.burst_as_it_is(fewer))


@asynccontextmanager
async def _of_at_least(pool: Pool, count: int) -> AsyncIterator[str]:
    try:
        target = (await pool.look()).target
    except NotTold as error:
        yield str(error)
    else:
        async with pool.held_at(max(count, target)) as refusal:
            yield refusal


async def _rounds(run: Run, count: int, what: str) -> None:
    ready = run.report.row(names.burst_ready(what))
    warm: list[str] = []
    for _ in range(ROUNDS):
        for server in run.servers:

            async def once(server: Server = server) -> None:
                found = await _burst(run, server, count, what)
                if server is run.ours:
                    warm.append(found)
                # What one makes anew must not burden the other's turn.
                with contextlib.suppress(CallFailed):
                    await server.pool.rest(after=count)

            await run.time(server.side, once)
    ready.note = f"warm when it began: {', '.join(warm)}"


async def _burst(run: Run, server: Server, count: int, what: str) -> str:
    """Create so many at once, call each, release them; return how many were warm before."""
    stand = None
    try:
        stand = await server.pool.rest(after=0)
        warm = "not told" if stand is None else str(stand.warm)
    except CallFailed as error:
        warm = error.detail
    claimed, first, ready, release = (
        run.report.row(row).of(server.side)
        for row in (
            names.burst_claim(what),
            names.burst_first(what),
            names.burst_ready(what),
            names.burst_release(what),
        )
    )
    async with connected(server, count) as connections:
        begun = time.perf_counter()

        async def lend(connection: Connection) -> str | None:
            name = await claimed.time(server.claim(connection))
            if name is None:
                first.fail(CallFailed("no sandbox"))
                return None
            true = server.tool(name, "run_shell_command", command="true")
            try:
                await server.call(true, connection, limit=FIRST_CALL_SECONDS)
            except CallFailed as error:
                first.fail(error)
            else:
                first.seconds.append(time.perf_counter() - begun)
            return name

        failed = first.failures.total()
        lent = await asyncio.gather(*map(lend, connections))
        spent = time.perf_counter() - begun
        if failures := first.failures.total() - failed:
            ready.fail(CallFailed("not all became ready", f"{failures} of {count} did not"))
        else:
            ready.seconds.append(spent)
        await asyncio.gather(
            *(
                release.time(server.release(name, connection))
                for name, connection in zip(lent, connections, strict=True)
                if name is not None
            )
        )
    return warm


@asynccontextmanager
async def connected(server: Server, count: int) -> AsyncIterator[list[Connection]]:
    """Open so many connections; they are kept until no create depends on them."""
    connections = [Connection(server.address) for _ in range(count)]
    try:
        # What cannot be opened is tried again, and counted, by the call.
        opening = (connection.open(CALL_SECONDS) for connection in connections)
        await asyncio.gather(*opening, return_exceptions=True)
        yield connections
    finally:
        await server.finish()
        for connection in connections:
            connection.close()


async def refills(run: Run) -> None:
    """Lend all that a pool holds at once, and wait until it holds as many again."""
    row = run.report.row(names.REFILL)
    for server in run.servers:
        try:
            size = (await server.pool.look()).target
        except NotTold as error:
            if server is run.ours:
                row.note = f"not measured: {error}"
            continue
        if not size:
            row.note = "not measured: the pool's target is 0"
            continue
        row.note = f"of {size}, from the first of as many claims at once"
        for _ in range(ROUNDS):
            await run.time(server.side, lambda server=server, size=size: _refill(run, server, size))


async def _refill(run: Run, server: Server, size: int) -> None:
    series = run.report.row(names.REFILL).of(server.side)
    await server.pool.rest()
    async with connected(server, size) as connections:
        begun = time.perf_counter()
        lent = await asyncio.gather(*map(server.claim, connections), return_exceptions=True)
        for failed in lent:
            if isinstance(failed, CallFailed):
                series.fail(failed)
        try:
            await server.pool.wait(lambda stand: stand.is_full)
            series.seconds.append(time.perf_counter() - begun)
        except CallFailed as error:
            series.fail(error)
        for name in lent:
            if isinstance(name, str):
                await server.release(name)

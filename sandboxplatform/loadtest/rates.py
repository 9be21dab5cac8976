"""As many as go, at several numbers of clients: calls, and creates with their releases."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sandboxplatform.loadtest import floors, names
from sandboxplatform.loadtest.burst import connected
from sandboxplatform.loadtest.connection import Connection
from sandboxplatform.loadtest.docker_engine import DockerEngine, EngineError
from sandboxplatform.loadtest.processes import is_here
from sandboxplatform.loadtest.results import OURS, Row, Series
from sandboxplatform.loadtest.run import FIRST_CALL_SECONDS, Run
from sandboxplatform.loadtest.server import Server

CYCLE_CLIENTS = (4, 8)
COLD_CLIENTS = (1, 4, 8)
TURNS = 2
"""A step's time is spent in so many parts, in turns with the others'."""

CYCLES_TIMES = 4
"""Cycles take seconds, not milliseconds: they are given so many times what calls are given."""

CREATE, CLAIM = "create", "create_from_pool"

GONE_SECONDS = 60.0


async def sustained(run: Run) -> None:
    """As many calls as go, at each number of clients."""
    for clients in run.options.clients:
        for sandbox in run.sandboxes:
            request, server = sandbox.shell(), sandbox.server

            def call(connection: Connection, request=request, server=server) -> Awaitable[bytes]:
                return server.call(request, connection)

            series = run.report.row(names.sustained(clients)).of(server.side)
            await _without_pause(server, series, clients, call, run.options.seconds)


async def _without_pause(
    server: Server,
    series: Series,
    clients: int,
    call: Callable[[Connection], Awaitable[object]],
    seconds: float,
) -> None:
    async with connected(server, clients) as connections:
        begun = time.perf_counter()

        async def client(connection: Connection) -> None:
            while time.perf_counter() - begun < seconds:
                if await series.time(call(connection)) is None:
                    # A server that refuses at once must not be asked in a hot loop.
                    await asyncio.sleep(0.01)

        await asyncio.gather(*map(client, connections))
        series.elapsed = (series.elapsed or 0.0) + time.perf_counter() - begun


async def cycles(run: Run) -> None:
    """As many creates and releases as go, from the pool where it has something."""
    for clients in CYCLE_CLIENTS:
        step = Step(run.report.row(names.cycles(clients), per="minute"), clients, CLAIM)
        for _ in range(TURNS):
            await _in_turn(run, step)


async def cold(run: Run) -> None:
    """The same with an empty pool, beside what the engine does without any server."""
    if len(run.servers) > 1:
        run.note(
            "The reference answers a create before its sandbox does; ours answers after it. The "
            "cold rows with a first result ask the same of both."
        )
    async with emptied(run) as refusal:
        for clients in COLD_CLIENTS:
            row = run.report.row(names.cold_cycles(clients), per="minute")
            steps = [Step(row, clients, CREATE)]
            if clients in CYCLE_CLIENTS:
                used = run.report.row(names.cold_used_cycles(clients), per="minute")
                steps.append(Step(used, clients, CREATE, calls=True))
            if refusal:
                row.note = f"{refusal}; these are creates as they come, warm ones among them"
            raw = _floor_row(run, row, clients)
            for _ in range(TURNS):
                for step in steps:
                    await _in_turn(run, step)
                if raw is not None:
                    raw = await _raw_cycles(run, *raw, clients)


@asynccontextmanager
async def emptied(run: Run) -> AsyncIterator[str]:
    """Hold our pool empty meanwhile; yields "" or why that cannot be done."""
    # The published reference never lends a warm one for a plain create.
    async with run.ours.pool.held_at(0) as refusal:
        yield refusal and f"the pool could not be emptied: {refusal}"


@dataclass(frozen=True, slots=True)
class Step:
    """One kind of cycle."""

    row: Row
    clients: int
    route: str
    calls: bool = False


async def _in_turn(run: Run, step: Step) -> None:
    for server in run.servers:
        await run.time(server.side, lambda server=server: _cycles(run, server, step))


async def _cycles(run: Run, server: Server, step: Step) -> None:
    released: set[str] = set()

    async def cycle(connection: Connection) -> str:
        name = await server.create(connection, route=step.route)
        if step.calls:
            true = server.tool(name, "run_shell_command", command="true")
            await server.call(true, connection, limit=FIRST_CALL_SECONDS)
        await server.release(name, connection)
        released.add(name)
        return name

    await server.pool.rest(after=0)
    series = step.row.of(server.side)
    await _without_pause(server, series, step.clients, cycle, _seconds(run))
    # Ours answers a release before the engine has removed anything; the rate must hold it.
    series.elapsed += await asyncio.to_thread(_seconds_until_gone, server, released)
    await server.pool.rest(after=step.clients if step.route == CLAIM else 0)


def _seconds(run: Run) -> float:
    return run.options.seconds * CYCLES_TIMES / TURNS


def _seconds_until_gone(server: Server, released: set[str]) -> float:
    begun = time.perf_counter()
    try:
        if not is_here(server.address.host):
            return 0.0
        engine = DockerEngine()
        while time.perf_counter() - begun < GONE_SECONDS:
            if not released & engine.names():
                break
            time.sleep(0.05)
    except EngineError:
        return 0.0
    return time.perf_counter() - begun


Raw = tuple[floors.Floor, Row]


def _floor_row(run: Run, row: Row, clients: int) -> Raw | None:
    try:
        if not is_here(run.ours.address.host):
            raise floors.NotMeasured("the server runs on another machine")
        floor = floors.choose(run.sandboxes[0].info)[-1]
    except floors.NotMeasured as error:
        run.report.row(names.raw_cycles("engine", clients)).note = f"not measured: {error}"
        return None
    floor.sweep()
    raw = run.report.row(names.raw_cycles(floor.cycle_name, clients), per="minute")
    row.floor = raw.name
    return floor, raw


async def _raw_cycles(run: Run, floor: floors.Floor, row: Row, clients: int) -> Raw | None:
    series = row.of(OURS)
    begun = time.perf_counter()

    def client() -> None:
        own = floor.for_another_thread()
        while time.perf_counter() - begun < _seconds(run):
            series.seconds.append(own.cycle())

    loop = asyncio.get_running_loop()
    try:
        # The loop's own threads may be fewer than clients.
        with ThreadPoolExecutor(clients) as threads:
            await asyncio.gather(*(loop.run_in_executor(threads, client) for _ in range(clients)))
    except floors.NotMeasured as error:
        row.note = f"not measured: {error}"
        return None
    finally:
        series.elapsed = (series.elapsed or 0.0) + time.perf_counter() - begun
    return floor, row

"""What is measured, a section at a time; each fills rows of the report."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from sandboxplatform.loadtest import floors, guest, names
from sandboxplatform.loadtest.burst import bursts, refills
from sandboxplatform.loadtest.connection import CallFailed, Connection
from sandboxplatform.loadtest.density import density
from sandboxplatform.loadtest.memory import measure_memory
from sandboxplatform.loadtest.processes import is_here
from sandboxplatform.loadtest.rates import cold, cycles, emptied, sustained
from sandboxplatform.loadtest.restart import restart
from sandboxplatform.loadtest.results import OURS, Series
from sandboxplatform.loadtest.run import FIRST_CALL_SECONDS, Call, Run, Sandbox
from sandboxplatform.loadtest.server import Server
from sandboxplatform.loadtest.warm import warm_claims

SETTLE_SECONDS = 0.4
"""After a release: what is still being removed would burden whoever is measured next."""

SLEEP_SECONDS = 5


async def creates(run: Run) -> None:
    """Cold creates, in turns with the machine's own floor."""
    async with emptied(run) as refusal:
        if refusal:
            run.report.row(names.CREATE).note = f"{refusal}; some may have been warm"
        await _creates(run)


async def _creates(run: Run) -> None:
    chosen = _floors(run)
    for floor in chosen:
        await asyncio.to_thread(floor.sweep)
    for _ in range(run.options.creates):
        for server in run.servers:
            await run.time(server.side, lambda server=server: _create(run, server))
            await asyncio.sleep(SETTLE_SECONDS)
        for floor in list(chosen):
            row = run.report.row(floor.name)
            try:
                row.of(OURS).seconds.append(await asyncio.to_thread(floor.run))
            except floors.NotMeasured as error:
                row.note = f"not measured: {error}"
                chosen.remove(floor)


def _floors(run: Run) -> list[floors.Floor]:
    run.report.row(names.CREATE)
    first = run.report.row(names.FIRST)
    try:
        if not is_here(run.ours.address.host):
            raise floors.NotMeasured("the server runs on another machine")
        chosen = floors.choose(run.sandboxes[0].info)
    except floors.NotMeasured as error:
        run.report.row("engine: start → first HTTP 200").note = f"not measured: {error}"
        return []
    first.floor = chosen[0].name
    run.report.floor_limits = chosen[0].limits
    return chosen


async def _create(run: Run, server: Server) -> None:
    """Create, call and release once."""
    create, first, release = (
        run.report.row(name).of(server.side) for name in (names.CREATE, names.FIRST, names.RELEASE)
    )
    begun = time.perf_counter()
    name = await create.time(server.create())
    if name is None:
        first.fail(CallFailed("no sandbox"))
        return
    try:
        await server.call(
            server.tool(name, "run_shell_command", command="true"), limit=FIRST_CALL_SECONDS
        )
    except CallFailed as error:
        first.fail(error)
    else:
        first.seconds.append(time.perf_counter() - begun)
    await release.time(server.release(name))


async def calls(run: Run) -> None:
    """One call at a time: through the server, and straight to the guest."""
    steps = [step for sandbox in run.sandboxes for step in await _call_steps(run, sandbox)]
    # By kind of call, so that one that goes to us and to the reference goes there in turns.
    kinds = list(dict.fromkeys(step[0] for step in steps))
    steps.sort(key=lambda step: kinds.index(step[0]))
    for _, _, call in steps:
        await Series().time(call())  # the first cell starts a kernel
    await run.in_turns(run.options.calls, steps)


async def _call_steps(run: Run, sandbox: Sandbox) -> list[tuple[str, str, Call]]:
    server, name = sandbox.server, sandbox.name
    through = {
        names.HEALTH: server.get("/health"),
        names.INFO: server.request("get_info", identity=name),
        names.PROXY: server.get(f"/proxy/{name}/healthz"),
        names.SHELL_ASYNC: sandbox.shell(route="call_tool_async"),
        names.SHELL: sandbox.shell(),
        names.SHELL_STRAIGHT: b"",
        names.CELL: server.tool(name, "run_ipython_cell", code="1+1"),
        names.CELL_STRAIGHT: b"",
    }
    calls: dict[str, Call] = {
        row: lambda sent=sent: server.call(sent) for row, sent in through.items()
    }
    try:
        found = await guest.find(server, sandbox.info)
    except guest.NotPossible as error:
        for row in (names.SHELL_STRAIGHT, names.CELL_STRAIGHT):
            del calls[row]
            if server.side == OURS:
                run.report.row(row).note = f"not measured: {error}"
    else:
        shell = found.tool("run_shell_command", command="true")
        cell = found.tool("run_ipython_cell", code="1+1")
        calls[names.SHELL_STRAIGHT] = lambda: found.call(shell)
        calls[names.CELL_STRAIGHT] = lambda: found.call(cell)
    return [(row, server.side, call) for row, call in calls.items()]


async def sleepers(run: Run) -> None:
    """Calls that only wait, all at once: does anything else wait with them?"""
    for sandbox in run.sandboxes:
        await run.time(sandbox.server.side, lambda sandbox=sandbox: _beside_sleepers(run, sandbox))


async def _beside_sleepers(run: Run, sandbox: Sandbox) -> None:
    server, count = sandbox.server, run.options.sleepers
    request = sandbox.shell(f"sleep {SLEEP_SECONDS}")
    slept = run.report.row(f"sleep {SLEEP_SECONDS}, {count} at once").of(server.side)
    connections = [Connection(server.address) for _ in range(count)]

    async def sleep(connection: Connection) -> None:
        await slept.time(server.call(request, connection, limit=FIRST_CALL_SECONDS))

    asleep = [asyncio.ensure_future(sleep(connection)) for connection in connections]
    try:
        begun = time.perf_counter()
        await asyncio.sleep(0.5)
        calls = {
            names.HEALTH: server.get("/health"),
            names.INFO: server.request("get_info", identity=sandbox.name),
            names.SHELL: sandbox.shell(),
        }
        for _ in range(run.options.calls):
            if time.perf_counter() - begun > SLEEP_SECONDS - 0.5 or asleep[0].done():
                break
            for row, sent in calls.items():
                series = run.report.row(names.beside(row, count)).of(server.side)
                await series.time(server.call(sent))
            # Many others that wait is the question here, not a busy server.
            await asyncio.sleep(0.01)
        await asyncio.gather(*asleep)
    finally:
        for task in asleep:
            task.cancel()
        await asyncio.gather(*asleep, return_exceptions=True)
        for connection in connections:
            connection.close()


SECTIONS: dict[str, Callable[[Run], Awaitable[None]]] = {
    "creates": creates,
    "calls": calls,
    "sustained": sustained,
    "sleepers": sleepers,
    "cold": cold,
    "cycles": cycles,
    "warm": warm_claims,
    "burst": bursts,
    "refill": refills,
    "memory": measure_memory,
    "density": density,
    "restart": restart,
}

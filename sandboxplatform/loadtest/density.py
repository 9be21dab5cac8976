"""What a warm sandbox holds while nobody calls it, and how many of them the machine has room for."""

from __future__ import annotations

import asyncio
import statistics

from sandboxplatform.loadtest import names, processes
from sandboxplatform.loadtest.connection import CallFailed
from sandboxplatform.loadtest.docker_engine import DockerEngine, EngineError
from sandboxplatform.loadtest.memory import IDLE_SECONDS, NotMeasured, measure_sandbox
from sandboxplatform.loadtest.pool import NotTold
from sandboxplatform.loadtest.results import OURS, Memory
from sandboxplatform.loadtest.run import Run, Sandbox
from sandboxplatform.loadtest.server import Server

INSTANCE_LABEL = "io.sandboxplatform.instance"
FROZEN_LOOKED_AT = 5


async def density(run: Run) -> None:
    """One from the pool of each server, and ours that are frozen where the pool freezes."""
    for server in run.servers:
        await run.time(server.side, lambda server=server: _idle_warm(run, server))


async def _idle_warm(run: Run, server: Server) -> None:
    await server.pool.rest()
    name = await server.claim()
    info = await server.data(server.request("get_info", identity=name))
    sandbox = Sandbox(server, name, info)
    idle = run.report.holds(names.IDLE_WARM)
    await asyncio.sleep(IDLE_SECONDS)
    try:
        await asyncio.to_thread(_measure, idle, server.side, sandbox)
        if server.side == OURS and await _freezes(server):
            frozen = run.report.holds(names.FROZEN)
            await asyncio.to_thread(_measure_frozen, frozen, idle, sandbox)
    except (NotMeasured, EngineError, OSError) as error:
        if server.side == OURS:
            idle.note = f"not measured: {error}"
    await server.release(name)


def _measure(idle: Memory, side: str, sandbox: Sandbox) -> None:
    measure_sandbox(idle, side, sandbox)
    beside = 0.0
    if idle.is_container:
        # Every container has a process of the engine's beside it, which does not stand in its
        # own count.
        beside = processes.proportional(processes.mentioning(str(sandbox.info["container_id"])))
    idle.fits[side] = int(processes.available() / (idle.megabytes[side] + beside))
    if side == OURS and beside:
        idle.note += f"; the engine's process beside it, {beside:.0f} MB, counts for what fits"


async def _freezes(server: Server) -> bool:
    try:
        return (await server.pool.look()).freezes
    except (NotTold, CallFailed):
        return False


def _measure_frozen(frozen: Memory, idle: Memory, sandbox: Sandbox) -> None:
    if not idle.is_container:
        frozen.note = "not measured: frozen ones are seen on a Docker engine only"
        return
    engine = DockerEngine()
    labels = engine.labels(str(sandbox.info["container_id"]))
    paused = engine.paused(f"{INSTANCE_LABEL}={labels.get(INSTANCE_LABEL)}")[:FROZEN_LOOKED_AT]
    if not paused:
        frozen.note = "not measured: the pool freezes, but none was frozen"
        return
    held = statistics.median(map(engine.memory, paused))
    beside = processes.proportional(processes.mentioning(paused[0]))
    frozen.megabytes[OURS] = held
    frozen.fits[OURS] = int(processes.available() / (held + beside))
    frozen.note = f"median of {len(paused)}"

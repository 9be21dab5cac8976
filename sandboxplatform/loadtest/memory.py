"""What an idle sandbox and the server's processes hold."""

from __future__ import annotations

import asyncio
from urllib.parse import unquote, urlsplit

from sandboxplatform.loadtest import names, processes
from sandboxplatform.loadtest.docker_engine import DockerEngine, EngineError
from sandboxplatform.loadtest.results import OURS, Memory
from sandboxplatform.loadtest.run import Run, Sandbox

IDLE_SECONDS = 2.0
CONTAINER = "the engine's count without droppable file cache"
PROPORTIONAL = "proportional set size of its processes"


class NotMeasured(Exception):
    """It cannot be seen from here; the sentence says why."""


async def measure_memory(run: Run) -> None:
    """A new sandbox after one call and a rest, and the servers as they are after the load."""
    for server in run.servers:
        fresh = await run.new_sandbox(server)
        await asyncio.sleep(IDLE_SECONDS)
        idle = run.report.holds(names.IDLE_SANDBOX)
        try:
            _measure_server(run, server.side, server.address.host, server.address.port)
            await asyncio.to_thread(measure_sandbox, idle, server.side, fresh)
        except (NotMeasured, EngineError, OSError) as error:
            if server.side == OURS:
                idle.note = f"not measured: {error}"
        await server.release(fresh.name)


def measure_sandbox(memory: Memory, side: str, sandbox: Sandbox) -> None:
    """Fill in what one holds and how it was counted; raise NotMeasured, EngineError, OSError."""
    parts = urlsplit(str(sandbox.info["url"]))
    if parts.scheme == "http+unix":
        pids = processes.sandbox_of_socket(unquote(parts.netloc))
        if not pids:
            raise NotMeasured("its processes cannot be seen by this user")
        memory.megabytes[side] = processes.proportional(pids)
        way = PROPORTIONAL
    else:
        memory.megabytes[side] = DockerEngine().memory(str(sandbox.info["container_id"]))
        way = CONTAINER
    if side == OURS:
        memory.note, memory.is_container = way, way == CONTAINER


def _measure_server(run: Run, side: str, host: str, port: int) -> None:
    worker, together = (run.report.holds(name) for name in (names.WORKER, names.ALL_PROCESSES))
    answering = processes.is_here(host) and processes.with_sockets(port, processes.ACCEPTED)
    if not answering:
        if side == OURS:
            worker.note = together.note = "not measured: its processes cannot be seen from here"
        return
    worker.megabytes[side] = max(map(processes.resident, answering))
    everyone = processes.with_sockets(port, processes.LISTENING) | answering
    together.megabytes[side] = processes.proportional(everyone)
    if side == OURS:
        worker.note = "the largest's resident set, shared pages included"
        together.note = f"{len(everyone)} processes, shared pages counted once"

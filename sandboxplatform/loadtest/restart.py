"""How long sandboxes that were lent cannot be used while their server is restarted."""

from __future__ import annotations

import asyncio
import tempfile
import time

from sandboxplatform.loadtest import names
from sandboxplatform.loadtest.burst import connected
from sandboxplatform.loadtest.connection import CallFailed, Connection
from sandboxplatform.loadtest.results import OURS, Series
from sandboxplatform.loadtest.run import FIRST_CALL_SECONDS, Run
from sandboxplatform.loadtest.server import Server

SANDBOXES = 20
RETRY_SECONDS = 0.05
RECOVERY_SECONDS = 120.0
GONE = ("HTTP 404", "HTTP 410")


async def restart(run: Run) -> None:
    """Lend some, restart the server with the given command, call each until it answers."""
    row = run.report.row(names.RESTART_ALL)
    if not run.options.restart:
        row.note = "not measured: no command that restarts the server was given (--restart)"
        return
    server = run.ours
    async with connected(server, min(SANDBOXES, run.options.burst)) as connections:
        lent = await asyncio.gather(*map(server.claim, connections))
        calls = [server.tool(name, "run_shell_command", command="true") for name in lent]
        await asyncio.gather(
            *(
                server.call(call, connection, limit=FIRST_CALL_SECONDS)
                for call, connection in zip(calls, connections, strict=True)
            )
        )
    spent = run.report.row(names.RESTART_COMMAND).of(OURS)
    # A restart that was begun is seen through: without a server nothing can be released.
    complaint = await spent.time(server.see_through(_run_command(run.options.restart)))
    if complaint is None:
        return
    begun = time.perf_counter()
    each = run.report.row(names.RESTART_EACH).of(OURS)
    connections = [Connection(server.address) for _ in calls]
    try:
        await asyncio.gather(
            *(
                _call_until_it_answers(server, each, connection, call)
                for call, connection in zip(calls, connections, strict=True)
            )
        )
        if each.failures:
            failed = f"{each.failures.total()} of {len(lent)} did not"
            row.of(OURS).fail(CallFailed("not all came back", failed))
            if set(each.failures) & set(GONE):
                row.note = "the restart removed sandboxes: AUTO_CLEANUP=False keeps them"
        else:
            row.of(OURS).seconds.append(time.perf_counter() - begun)
    finally:
        for connection in connections:
            connection.close()
    for name in lent:
        await server.release(name)


async def _run_command(command: str) -> str:
    """Run it to its end; raise CallFailed with what it said where it failed."""
    with tempfile.TemporaryFile() as said:
        # Not pipes: a server that the command starts may keep them open for good. A session of
        # its own: Ctrl-C is meant for this program only.
        process = await asyncio.create_subprocess_shell(
            command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        code = await process.wait()
        said.seek(0)
        text = said.read().decode(errors="replace").strip()
    if code:
        raise CallFailed(f"the command ended with {code}", text[-300:])
    return text


async def _call_until_it_answers(
    server: Server, series: Series, connection: Connection, call: bytes
) -> None:
    begun = time.perf_counter()
    while True:
        try:
            await server.call(call, connection, limit=RECOVERY_SECONDS)
        except CallFailed as error:
            if error.kind in GONE or time.perf_counter() - begun > RECOVERY_SECONDS:
                series.fail(error)
                return
        else:
            series.seconds.append(time.perf_counter() - begun)
            return
        await asyncio.sleep(RETRY_SECONDS)

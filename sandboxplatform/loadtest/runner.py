"""From options to a report: check the servers, run the sections, release everything."""

from __future__ import annotations

import asyncio
import os
import platform
import signal
from collections.abc import Sequence

import uvloop

from sandboxplatform.loadtest.connection import CallFailed
from sandboxplatform.loadtest.results import OURS, Report
from sandboxplatform.loadtest.run import Run
from sandboxplatform.loadtest.sections import SECTIONS
from sandboxplatform.loadtest.server import Server

FIRST_SECONDS = 10.0


class CannotTest(Exception):
    """Nothing can be measured; the sentence says why and what to change."""


def machine() -> dict[str, object]:
    """Return what figures depend on."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "kernel": platform.release(),
    }


def execute(run: Run, sections: Sequence[str]) -> Report:
    """Run the sections; whatever happens, what was created is released before this returns."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_execute(run, sections))


async def _execute(run: Run, sections: Sequence[str]) -> Report:
    run.report.machine = machine()
    servers = list(run.servers)
    loop = asyncio.get_running_loop()
    work = asyncio.ensure_future(_sections(run, sections))
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, work.cancel)
    try:
        await work
    except asyncio.CancelledError:
        run.report.interrupted = True
    finally:
        run.say("releasing what was created …")
        for server in servers:
            await server.close()
            if server.created:
                run.note(f"Not released at {server.url}: {', '.join(sorted(server.created))}.")
            if server.pool.target_before is not None:
                run.note(
                    f"The pool of {server.sandbox_type} at {server.url} did not get its target "
                    f"{server.pool.target_before} back: change it in the admin."
                )
    return run.report


async def _sections(run: Run, sections: Sequence[str]) -> None:
    for server in run.servers:
        await _check(server)
    try:
        await run.prepare()
    except CallFailed as error:
        raise CannotTest(f"{run.ours.url} gave no sandbox that answers: {error}") from error
    for section in sections:
        run.begin(section)
        try:
            await SECTIONS[section](run)
        except CallFailed as error:
            run.note(f"The section {section} ended early: {error}")


async def _check(server: Server) -> None:
    """Raise CannotTest if nothing answers there, or it does not know the token."""
    option = "--token" if server.side == OURS else "--reference-token"
    try:
        await server.call(server.get("/health"), limit=FIRST_SECONDS)
        await server.call(server.request("list_session_keys"), limit=FIRST_SECONDS)
    except CallFailed as error:
        if error.kind == "HTTP 401":
            raise CannotTest(
                f"{server.url} refused the token; give the one of its BEARER_TOKEN, or one made "
                f"with createtoken, as {option}."
            ) from error
        if server.side == OURS or error.kind == "no connection":
            raise CannotTest(
                f"{server.url} does not answer as a sandbox server: {error}"
            ) from error

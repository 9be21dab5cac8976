"""One run: the servers, what was created for it, and the report that its sections fill."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from sandboxplatform.loadtest.connection import CallFailed
from sandboxplatform.loadtest.results import OURS, Report
from sandboxplatform.loadtest.server import Server

Call = Callable[[], Awaitable[object]]

FIRST_CALL_SECONDS = 60.0
REFERENCE_SECONDS = 150.0
"""What one section may spend on the reference, which takes up to 30 s for a first call."""


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line."""

    creates: int = 10
    calls: int = 200
    seconds: float = 5.0
    clients: tuple[int, ...] = (1, 8, 32)
    sleepers: int = 64
    burst: int = 30
    """Creates at once; no section that needs many sandboxes makes more."""

    restart: str = ""
    """A shell command that restarts our server; empty: there is none."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A sandbox of this run."""

    server: Server
    name: str
    info: dict[str, object]

    def shell(self, command: str = "true", *, route: str = "call_tool") -> bytes:
        return self.server.tool(self.name, "run_shell_command", route=route, command=command)


@dataclass
class Run:
    """What the sections share."""

    options: Options
    servers: list[Server]
    """Ours, then the reference where there is one."""

    say: Callable[[str], None]
    report: Report = field(default_factory=Report)
    sandboxes: list[Sandbox] = field(default_factory=list)
    """One on each server that gave one, ours first: what calls go to."""

    _reference_spent: float = 0.0

    @property
    def ours(self) -> Server:
        return self.servers[0]

    def begin(self, section: str) -> None:
        self.say(f"{section} …")
        self.give_reference_time()

    def give_reference_time(self) -> None:
        """Let the reference spend as much as a section may, from now on."""
        self._reference_spent = 0.0

    def note(self, sentence: str) -> None:
        self.report.notes.append(sentence)

    def leave_out(self, reason: str, *rows: str) -> None:
        for row in rows:
            self.report.row(row).note = f"not measured: {reason}"

    async def prepare(self) -> None:
        """Get the sandboxes that calls go to; without one of ours raise CallFailed."""
        for server in self.servers:
            try:
                self.sandboxes.append(await self.new_sandbox(server))
            except CallFailed as error:
                if server.side == OURS:
                    raise
                self.note(f"The reference was not measured: it gave no sandbox ({error}).")
        self.servers = [sandbox.server for sandbox in self.sandboxes]

    async def new_sandbox(self, server: Server) -> Sandbox:
        """Create a sandbox and wait for its first answer."""
        name = await server.create()
        info = await server.data(server.request("get_info", identity=name))
        found = Sandbox(server, name, info)
        await server.call(found.shell(), limit=FIRST_CALL_SECONDS)
        return found

    async def time(self, side: str, call: Call) -> None:
        """Make one call; the reference's is left out once a section has spent its time on it."""
        if side == OURS:
            await call()
        elif self._reference_spent < REFERENCE_SECONDS:
            begun = time.perf_counter()
            await call()
            self._reference_spent += time.perf_counter() - begun

    async def in_turns(self, count: int, steps: list[tuple[str, str, Call]]) -> None:
        """
        Make every step's call once, count times over, so that noise hits them all alike.

        A step is a row's name, a side and what to call.
        """
        for _ in range(count):
            for row, side, call in steps:
                series = self.report.row(row).of(side)
                await self.time(side, lambda series=series, call=call: series.time(call()))

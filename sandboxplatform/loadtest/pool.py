"""The pool that a server under test lends from: how full it is, and its target for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandboxplatform.loadtest.connection import CallFailed, Connection

if TYPE_CHECKING:
    from sandboxplatform.loadtest.server import Server

ROUTE = "/api/v1/pools"
LOOK_EVERY = 0.05
"""Each look costs the server a query, which whoever is measured meanwhile pays for."""

FILL_SECONDS = 120.0
CALM_SECONDS = 0.3
"""After the last one is warm or gone: what is still being removed burdens the next measurement."""

SETTLE_SECONDS = 3.0
SETTLE_SECONDS_EACH = 0.5
LONGEST_SETTLE = 20.0


class NotTold(Exception):
    """The server does not tell of its pools, or does not let them be changed; says why."""


@dataclass(frozen=True, slots=True)
class Stand:
    """How a pool stands at one moment."""

    target: int = 0
    warm: int = 0
    coming: int = 0
    freezes: bool = False

    @property
    def is_full(self) -> bool:
        return self.warm >= self.target

    @property
    def is_at_rest(self) -> bool:
        return self.warm == self.target and not self.coming


class Pool:
    """The pool of the type that one server is tested with."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connection = Connection(server.address)
        self.target_before: int | None = None
        """What the target was, as long as a run holds it at something else."""

    async def look(self) -> Stand:
        """Return how it stands, all zero where the type has no pool; raise NotTold."""
        try:
            found = await self._server.data(self._server.get(ROUTE), self._connection)
        except CallFailed as error:
            if error.kind.startswith("HTTP 4"):
                raise NotTold(f"the server does not tell of its pools ({error.kind})") from error
            raise
        for each in found:
            if each["sandbox_type"] == self._server.sandbox_type:
                freezes = bool(each.get("freeze"))
                return Stand(each["target"], each["warm"], each["coming"], freezes)
        return Stand()

    async def wait(self, until: Callable[[Stand], bool]) -> Stand:
        """Look until it stands so; raise CallFailed after FILL_SECONDS."""
        deadline = time.perf_counter() + FILL_SECONDS
        while not until(stand := await self.look()):
            if time.perf_counter() > deadline:
                raise CallFailed(
                    "the pool does not fill",
                    f"{stand.warm} of {stand.target} warm after {FILL_SECONDS:g} s",
                )
            await asyncio.sleep(LOOK_EVERY)
        return stand

    async def rest(self, *, after: int = 1) -> Stand | None:
        """
        Wait until it is full and nothing moves; after is how many were lent since it was.

        Where the server does not tell, wait for as long as that may take, and return None. It is
        called after each use of a pool too, so that one server's refill burdens no other's turn.
        """
        try:
            stand = await self.wait(lambda stand: stand.is_at_rest)
        except NotTold:
            waited = SETTLE_SECONDS + SETTLE_SECONDS_EACH * after if after else CALM_SECONDS
            await asyncio.sleep(min(waited, LONGEST_SETTLE))
            return None
        await asyncio.sleep(CALM_SECONDS)
        return stand

    @asynccontextmanager
    async def held_at(self, target: int) -> AsyncIterator[str]:
        """Change its target meanwhile and wait until it is met; yields "" or why it is not."""
        refusal = ""
        try:
            if (await self.look()).target != target:
                await self._hold_at(target)
            await self.rest()
        except NotTold as error:
            refusal = str(error)
        except CallFailed as error:
            if self.target_before is None:
                raise
            refusal = str(error)
        try:
            yield refusal
        finally:
            await self.put_back()

    async def _hold_at(self, target: int) -> None:
        self.target_before = (await self.look()).target
        try:
            await self._server.see_through(self._set(target))
        except CallFailed as error:
            if error.kind.startswith("HTTP 4"):
                self.target_before = None
                raise NotTold(f"its target may not be changed ({error})") from error
            raise

    async def put_back(self) -> None:
        """Give it the target back that it had before this run; raise CallFailed."""
        if self.target_before is not None:
            await self._server.see_through(self._put_back())

    async def _put_back(self) -> None:
        await self._set(self.target_before)
        self.target_before = None

    async def _set(self, target: int) -> None:
        path = f"{ROUTE}/{self._server.sandbox_type}"
        # A connection of its own: the other may be in the middle of a look.
        connection = Connection(self._server.address)
        try:
            await self._server.data(self._server.change(path, target=target), connection)
        finally:
            connection.close()

    def close(self) -> None:
        self._connection.close()

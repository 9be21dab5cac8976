"""What is killed, and what has to be started again because nothing else does it."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from tests.chaos.builds import Builds
from tests.chaos.daemons import Postgres, wait_for
from tests.chaos.world import World, kill

STATES = ("pending", "starting", "halting", "resuming", "stopping")
LONGEST_WAIT = 2.0
"""Seconds for which a kill waits until some sandbox is in the state it is meant for."""


@dataclass(frozen=True)
class Step:
    """One kill: what, after how much load, in the middle of what, and for how long."""

    target: str
    after: float
    moment: str
    away: float

    def __str__(self) -> str:
        when = f" while one is {self.moment}" if self.moment else ""
        return f"{self.target}{when}, away for {self.away:.1f} s"


def schedule(seed: int, only: tuple[str, ...] = ()) -> Callable[[], Step]:
    """
    Return what draws one step after another; the same seed draws the same steps.

    only narrows the targets, to look into one of them.
    """
    chance = random.Random(seed)  # noqa: S311  not a secret
    bag: list[str] = []

    def draw() -> Step:
        if not bag:
            # All of them in turn, so that a short run leaves none out.
            bag.extend(only or KILLS)
            chance.shuffle(bag)
        return Step(
            target=bag.pop(),
            after=chance.uniform(0.5, 6),
            moment=chance.choice(("", *STATES)),
            away=chance.choice((0.0, 0.0, chance.uniform(0, 3))),
        )

    return draw


class Killer:
    """Carries steps out, and remembers how each went."""

    def __init__(self, world: World, builds: Builds) -> None:
        self._world = world
        self._builds = builds
        self.done: Counter[str] = Counter()
        self.longest: dict[str, float] = {}
        self.caught: Counter[str] = Counter()
        """How many sandboxes were in which state at the moment of a kill."""

    def carry_out(self, step: Step) -> None:
        """Kill, wait, start again, and return when all is healthy."""
        self._await(step.moment)
        since = time.monotonic()
        KILLS[step.target](self, step.away)
        wait_for(self._world.is_whole, f"after the kill of {step.target}, the server was not whole")
        self.done[step.target] += 1
        took = time.monotonic() - since
        self.longest[step.target] = max(took, self.longest.get(step.target, 0.0))

    def _await(self, moment: str) -> None:
        """Return when a sandbox is in the state, or after a little while; note who is caught."""
        deadline = time.monotonic() + LONGEST_WAIT
        with psycopg.connect(Postgres.url, autocommit=True) as connection:
            while True:
                rows = connection.execute(
                    "SELECT state, count(*) FROM sandboxes_sandbox WHERE state = ANY(%s) GROUP BY 1",
                    [list(STATES)],
                )
                found = dict(rows.fetchall())
                if not moment or moment in found or time.monotonic() > deadline:
                    self.caught.update(found)
                    return
                time.sleep(0.003)

    def _part(self, part: str, kill_it: Callable[[], None], start: Callable[[], None]) -> None:
        outage = self._world.outages.begin(part)
        kill_it()
        start()
        self._world.outages.end(outage)

    def web_worker(self, away: float) -> None:
        workers = self._world.web_workers()
        if workers:
            outage = self._world.outages.begin("web worker")
            kill(workers[0])
            self._world.outages.end(outage)

    def web_master(self, away: float) -> None:
        self._child("web")

    def keeper(self, away: float) -> None:
        self._child("keeper")

    def reaper(self, away: float) -> None:
        self._child("reaper")

    def _child(self, name: str) -> None:
        pid = self._world.part(name)
        outage = self._world.outages.begin("server")
        if pid:
            kill(pid)
        wait_for(self._world.is_whole, f"the {name} was not started again")
        self._world.outages.end(outage)

    def parent(self, away: float) -> None:
        self._server(away, whole=False)

    def whole_server(self, away: float) -> None:
        self._server(away, whole=True)

    def _server(self, away: float, *, whole: bool) -> None:
        self._part(
            "server",
            lambda: self._world.kill_server(whole=whole),
            self._later(away, self._world.start_server),
        )

    def redis(self, away: float) -> None:
        redis = self._world.redis
        self._part("redis", redis.kill, self._later(away, redis.start))

    def postgres(self, away: float) -> None:
        postgres = self._world.postgres
        self._part("postgres", postgres.kill, self._later(away, postgres.start))

    def engine(self, away: float) -> None:
        self._engine(away, live_restore=True)

    def engine_with_containers(self, away: float) -> None:
        outage = self._world.outages.begin("containers")
        self._engine(away, live_restore=False)
        self._world.outages.end(outage)

    def _engine(self, away: float, *, live_restore: bool) -> None:
        engine = self._world.engine
        engine.live_restore = live_restore
        before = len(engine.mended_at)
        self._part("engine", engine.kill, self._later(away, engine.start))
        if len(engine.mended_at) > before:
            self._world.outages.note("containers", engine.mended_at[before])
            self.done["(the engine could not start until its networks were forgotten)"] += 1

    def engine_and_server(self, away: float) -> None:
        """Take both away at once, as a machine that falls does, but for its containers."""
        outage = self._world.outages.begin("server")
        self._world.kill_server(whole=True)
        self._engine(away, live_restore=True)
        self._world.start_server()
        self._world.outages.end(outage)

    def builder(self, away: float) -> None:
        self._builds.kill()

    @staticmethod
    def _later(away: float, start: Callable[[], None]) -> Callable[[], None]:
        def wait_and_start() -> None:
            time.sleep(away)
            start()

        return wait_and_start


KILLS: dict[str, Callable[[Killer, float], None]] = {
    "web worker": Killer.web_worker,
    "web master": Killer.web_master,
    "keeper": Killer.keeper,
    "reaper": Killer.reaper,
    "parent": Killer.parent,
    "whole server": Killer.whole_server,
    "Redis": Killer.redis,
    "PostgreSQL": Killer.postgres,
    "engine": Killer.engine,
    "engine, without live-restore": Killer.engine_with_containers,
    "engine and whole server": Killer.engine_and_server,
    "builder": Killer.builder,
}

"""One run: rounds of load and kills, each followed by a look at everything."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from tests.chaos import rows
from tests.chaos.builds import Builds
from tests.chaos.calls import Failed
from tests.chaos.explaining import explain_all
from tests.chaos.kills import Killer, schedule
from tests.chaos.ledger import Broken
from tests.chaos.load import Client
from tests.chaos.report import Report
from tests.chaos.world import World

CLIENTS = 4
ROUND_SECONDS = 45.0


class Run:
    """The parts of one run, and what they have found so far."""

    def __init__(
        self, folder: Path, *, seed: int, seconds: float, only: tuple[str, ...] = ()
    ) -> None:
        self.world = World(folder)
        self.builds = Builds(self.world, folder)
        self.clients = [Client(number, seed, self.world.server) for number in range(CLIENTS)]
        self.killer = Killer(self.world, self.builds)
        self._draw = schedule(seed, only)
        self._seconds = seconds
        self.report = Report(seed, seconds)

    @property
    def logs(self) -> list[Path]:
        return [*self.world.logs, self.builds.log]

    def run(self) -> Report:
        """Do it all; the report is filled in whatever happens."""
        _say("starting an engine, a database and a Redis")
        self.world.create()
        rows.set_up(self.world.server)
        try:
            self._rounds()
            self._end()
        finally:
            self._sum_up()
        return self.report

    def _rounds(self) -> None:
        workers = [*self.clients, self.builds]
        deadline = time.monotonic() + self._seconds
        number = 0
        while time.monotonic() < deadline:
            published = bool(number % 2)
            way = "leased ports" if published else "their own addresses"
            _say(f"round {number + 1}: sandboxes are reached by {way}")
            if number:
                self.world.stop_server()
            self.world.start_server(published=published)
            for worker in workers:
                if not number:
                    worker.start()
                worker.go_on()
            until = min(deadline, time.monotonic() + ROUND_SECONDS)
            while time.monotonic() < until:
                step = self._draw()
                time.sleep(step.after)
                _say(f"killing: {step}")
                self.killer.carry_out(step)
            for worker in workers:
                worker.pause()
            for worker in workers:
                worker.wait_until_at_rest()
            self._look()
            number += 1

    def _look(self) -> None:
        """Check every invariant, and that every client still has what it was promised."""
        from tests.chaos import invariants

        _say("the load rests; looking at everything")
        for client in self.clients:
            for held in list(client.held):
                try:
                    if held.halted:
                        client.resume(held)
                    client.read(held)
                except Failed as failed:
                    client.note(failed, held)
                except Broken as broken:
                    client.broken.append(str(broken))
                    client.held.remove(held)
        settled = invariants.settle(self.world, checks=invariants.SETTLED)
        self.report.settled.append(settled.seconds)
        self.report.leaks += settled.found
        last = f"; last of all: {'; '.join(settled.last)}" if settled.last else ""
        _say(f"settled after {settled.seconds:.1f} s, {len(settled.found)} leaks{last}")

    def _end(self) -> None:
        """Build once undisturbed, give everything back, close, and see that nothing is left."""
        from tests.chaos import invariants

        _say("building once more, undisturbed")
        if code := self.builds.build():
            self.report.broken.append(f"the last build ended with {code}")
        checks = (invariants.no_image_of_a_killed_build_is_left, *invariants.SETTLED)
        self.report.leaks += invariants.settle(self.world, checks=checks).found
        _say("releasing everything")
        status, answer = self.world.server.rpc("cleanup")
        if status != 200:
            self.report.broken.append(f"cleanup was answered with {status}: {answer}")
        self.world.stop_server()
        self.world.start_server(clean=True)
        self.world.stop_server()
        settled = invariants.settle(self.world, checks=(invariants.nothing_is_left,))
        self.report.leaks += settled.found

    def _sum_up(self) -> None:
        report = self.report
        failures = [failure for client in self.clients for failure in client.failures]
        report.classes, report.faults = explain_all(failures, self.world.outages)
        for client in self.clients:
            report.operations += client.caller.done
            report.broken += client.broken
        report.failed = Counter(failure.call.operation for failure in failures)
        report.kills, report.longest = self.killer.done, self.killer.longest
        report.caught = self.killer.caught
        for worker in [*self.clients, self.builds]:
            worker.close()
            report.broken += [worker.fault] if worker.fault else []
        with rows.connected():
            report.ends = _ends()


def _ends() -> Counter[str]:
    from sandboxes.models import Sandbox
    from sandboxes.states import State

    ended = Sandbox.objects.filter(state=State.STOPPED)
    return Counter(ended.values_list("stop_reason", flat=True))


def _say(sentence: str) -> None:
    print(f"{time.strftime('%H:%M:%S', time.gmtime())} {sentence}", flush=True)

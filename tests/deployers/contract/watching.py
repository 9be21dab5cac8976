"""Be told at once which sandboxes ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from deployers.observation import Phase
from tests.deployers.contract.steps import DeployerSteps
from tests.waiting import eventually


class WatchingTests(DeployerSteps):
    @pytest.fixture
    def watch(self, deployer) -> Iterator[Callable[[], Iterator[str]]]:
        """Start to watch; the test's end stops it."""
        self.need(deployer, "supports_watch")
        stop = Event()
        yield lambda: deployer.watch(stop)
        stop.set()

    def test_watch_tells_what_ended_by_itself(self, deployer, make_spec, watch):
        others, spec = make_spec(), make_spec()
        for one in (others, spec):
            self.start(deployer, one)
        names = watch()
        self.let_die(deployer, spec.name)
        assert next(names) == spec.name
        assert eventually(lambda: deployer.inspect(spec.name).phase is Phase.BROKEN)

    def test_watch_tells_what_was_removed(self, deployer, make_spec, watch):
        spec = make_spec()
        self.start(deployer, spec)
        names = watch()
        # By somebody else, who shares nothing with the one that watches.
        with ThreadPoolExecutor(1) as threads:
            removal = threads.submit(deployer.remove, spec.name)
            assert next(names) == spec.name
            removal.result()

    def test_watch_tells_of_what_was_started_after_it_began(self, deployer, make_spec, watch):
        names = watch()
        with ThreadPoolExecutor(1) as threads:
            told = threads.submit(next, names)
            spec = make_spec()
            self.start(deployer, spec)
            self.let_die(deployer, spec.name)
            assert told.result() == spec.name

    def test_each_watch_tells_each_end(self, deployer, make_spec, watch):
        specs = [make_spec(), make_spec()]
        for spec in specs:
            self.start(deployer, spec)
        first, second = watch(), watch()
        for spec in specs:
            self.let_die(deployer, spec.name)
        for names in (first, second):
            told = set()
            while told != {spec.name for spec in specs}:
                told.add(next(names))

    def test_watch_tells_nothing_of_strangers(self, deployer, make_spec, watch):
        spec, theirs = make_spec(), make_spec()
        other = self.other_instance(deployer)
        try:
            self.start(other, theirs)
            self.start(deployer, spec)
            names = watch()
            self.let_die(other, theirs.name)
            assert eventually(lambda: other.inspect(theirs.name).phase is Phase.BROKEN)
            self.let_die(deployer, spec.name)
            assert next(names) == spec.name
        finally:
            other.remove(theirs.name)
            other.close()

    def test_watch_ends_when_it_is_told_to(self, deployer, make_spec):
        self.need(deployer, "supports_watch")
        stop = Event()
        names = deployer.watch(stop)
        with ThreadPoolExecutor(1) as threads:
            told = threads.submit(list, names)
            stop.set()
            assert told.result() == []
        assert list(deployer.watch(stop)) == []

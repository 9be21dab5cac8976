"""Freeze a sandbox, and continue it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from deployers.errors import Rejected
from deployers.observation import Phase
from tests.deployers.contract.calls import fetch, guest_answers
from tests.deployers.contract.steps import DeployerSteps
from tests.waiting import eventually


class PausingTests(DeployerSteps):
    def test_pause_freezes_it_and_unpause_continues_it(self, deployer, make_spec):
        self.need(deployer, "supports_pause")
        spec = make_spec()
        before = self.start(deployer, spec)
        for _ in range(2):
            deployer.pause(spec.name)
            seen = deployer.inspect(spec.name)
            assert seen == replace(before, phase=Phase.PAUSED)
            assert [(one.phase, one.url) for one in deployer.inspect_all()] == [
                (Phase.PAUSED, before.url)
            ]
            assert not guest_answers(before.url)
        for _ in range(2):
            deployer.unpause(spec.name)
            assert deployer.inspect(spec.name) == before
            assert guest_answers(before.url)

    def test_a_request_that_meets_a_paused_one_is_answered_later(self, deployer, make_spec):
        self.need(deployer, "supports_pause")
        spec = make_spec()
        url = self.start(deployer, spec).url
        deployer.pause(spec.name)
        with ThreadPoolExecutor(1) as threads:
            asked = threads.submit(fetch, url, "/fastapi/healthz", timeout=60)
            deployer.unpause(spec.name)
            assert asked.result()[0] == 200

    def test_start_continues_what_is_paused(self, deployer, make_spec):
        self.need(deployer, "supports_pause")
        spec = make_spec()
        before = self.start(deployer, spec)
        deployer.pause(spec.name)
        assert self.start(deployer, spec) == before

    def test_what_is_paused_can_be_stopped_and_started(self, deployer, make_spec):
        self.need(deployer, "supports_pause", "supports_stop")
        spec = make_spec()
        self.start(deployer, spec)
        deployer.pause(spec.name)
        deployer.stop(spec.name)
        assert deployer.inspect(spec.name).phase is Phase.STOPPED
        with pytest.raises(Rejected, match=spec.name):
            deployer.pause(spec.name)
        with pytest.raises(Rejected, match=spec.name):
            deployer.unpause(spec.name)
        self.start(deployer, spec)

    def test_what_is_paused_can_be_removed(self, deployer, make_spec):
        self.need(deployer, "supports_pause")
        spec = make_spec()
        url = self.start(deployer, spec).url
        deployer.pause(spec.name)
        deployer.remove(spec.name)
        assert deployer.inspect(spec.name).phase is Phase.ABSENT
        assert not guest_answers(url)

    def test_pause_and_unpause_of_what_does_not_run_are_errors(self, deployer, make_spec):
        self.need(deployer, "supports_pause")
        spec = make_spec()
        self.start(deployer, spec)
        self.let_die(deployer, spec.name)
        assert eventually(lambda: deployer.inspect(spec.name).phase is Phase.BROKEN)
        for name in (spec.name, "contract-never-was"):
            for verb in (deployer.pause, deployer.unpause):
                with pytest.raises(Rejected, match=name):
                    verb(name)

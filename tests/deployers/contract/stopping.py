"""Stop a sandbox, and start it again with its files."""

from __future__ import annotations

import pytest

from deployers.errors import Rejected
from deployers.observation import Phase
from tests.deployers.contract.calls import guest_answers
from tests.deployers.contract.steps import DeployerSteps
from tests.waiting import eventually


class StoppingTests(DeployerSteps):
    def test_stop_keeps_the_files_and_start_goes_on(self, deployer, make_spec, tmp_path):
        self.need(deployer, "supports_stop")
        looks = self.can_run_inside
        mounted = {"workspace": tmp_path} if deployer.supports_mounts else {}
        spec = make_spec(**mounted)
        first = self.start(deployer, spec)
        if looks:
            self.inside(deployer, spec.name, "echo kept > /workspace/f; echo kept > /tmp/f")
        deployer.stop(spec.name)
        deployer.stop(spec.name)
        seen = deployer.inspect(spec.name)
        assert (seen.phase, seen.url) == (Phase.STOPPED, "")
        assert [one.phase for one in deployer.inspect_all()] == [Phase.STOPPED]
        assert not guest_answers(first.url)
        self.start(deployer, spec)
        if looks:
            assert self.inside(deployer, spec.name, "cat /workspace/f") == "kept"
        if looks and deployer.keeps_files_when_stopped:
            assert self.inside(deployer, spec.name, "cat /tmp/f") == "kept"

    def test_what_dies_after_a_stop_and_start_is_broken_again(self, deployer, make_spec):
        self.need(deployer, "supports_stop")
        spec = make_spec()
        self.start(deployer, spec)
        deployer.stop(spec.name)
        self.start(deployer, spec)
        self.let_die(deployer, spec.name)
        assert eventually(lambda: deployer.inspect(spec.name).phase is Phase.BROKEN)

    def test_what_is_stopped_can_be_removed(self, deployer, make_spec):
        self.need(deployer, "supports_stop")
        spec = make_spec()
        self.start(deployer, spec)
        deployer.stop(spec.name)
        deployer.remove(spec.name)
        assert deployer.inspect(spec.name).phase is Phase.ABSENT

    def test_stop_of_what_is_absent_is_an_error(self, deployer):
        self.need(deployer, "supports_stop")
        with pytest.raises(Rejected, match="contract-never-was"):
            deployer.stop("contract-never-was")

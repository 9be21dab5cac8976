"""The contract's hooks for the fake deployer, shared by its tests."""

from __future__ import annotations

import secrets

import pytest

from deployers.fake import FakeDeployer
from tests.deployers.contract.steps import DeployerSteps


class FakeSteps(DeployerSteps):
    image = "fake/image:latest"
    can_run_inside = False
    options: dict[str, object] = {}

    @pytest.fixture
    def deployer(self):
        deployer = FakeDeployer(instance=secrets.token_hex(4), **self.options)
        yield deployer
        deployer.fail_inspect = deployer.fail_remove = None
        deployer.clear()

    def other_instance(self, deployer):
        return FakeDeployer(instance=f"{deployer.instance}-b", **self.options)

    def let_die(self, deployer, name):
        deployer.kill(name, exit_code=7)
        return 7

    def say(self, deployer, name, line):
        deployer.say(name, line)

    def make_half(self, deployer, spec):
        FakeDeployer(instance=deployer.instance, **self.options | {"ready": False}).start(spec)

    def leftovers(self, deployer):
        return [seen.name for seen in deployer.inspect_all()]

"""What a sandbox is kept from: processes, memory, large files and the network."""

from __future__ import annotations

from deployers.specs import Limits, Network
from tests.deployers.contract.calls import guest_answers
from tests.deployers.contract.steps import DeployerSteps


class LimitTests(DeployerSteps):
    def test_the_limit_of_processes_holds(self, deployer, make_spec):
        self.need(deployer, "supports_limits", "can_run_inside")
        spec = make_spec(limits=Limits(processes=24))
        self.start(deployer, spec)
        # Each sleeper holds one process; the shell cannot fork the last ones.
        command = "for i in $(seq 40); do sleep 1 & done; wait"
        code, output = self.run_inside(deployer, spec.name, command)
        assert code != 0
        assert "fork" in output.lower()

    def test_the_limit_of_memory_holds(self, deployer, make_spec):
        self.need(deployer, "supports_limits", "can_run_inside")
        spec = make_spec(limits=Limits(memory_mb=96))
        self.start(deployer, spec)
        # tail keeps a last line without an end in memory as a whole.
        small, large = "head -c 10m /dev/zero | tail", "head -c 300m /dev/zero | tail"
        assert self.run_inside(deployer, spec.name, f"{small} | wc -c")[1].strip() == "10485760"
        assert self.run_inside(deployer, spec.name, f"{large} | wc -c")[1].strip() != "314572800"

    def test_the_limit_of_file_size_holds(self, deployer, make_spec):
        self.need(deployer, "supports_limits", "can_run_inside")
        spec = make_spec(limits=Limits(file_size_mb=1))
        self.start(deployer, spec)
        self.inside(deployer, spec.name, "head -c 1048576 /dev/zero > /tmp/fits")
        code, _ = self.run_inside(deployer, spec.name, "head -c 1048577 /dev/zero > /tmp/big")
        assert code != 0

    def test_without_network_nothing_outside_is_reached(self, deployer, make_spec):
        self.need(deployer, "supports_network", "can_run_inside")
        spec = make_spec(network=Network.NONE)
        seen = self.start(deployer, spec)
        assert guest_answers(seen.url)
        self.assert_no_way_out(deployer, spec.name)

"""Sandboxes that are reached through published ports."""

from __future__ import annotations

import socket

import pytest

from deployers.docker import DockerDeployer
from deployers.errors import PortTaken, Rejected, UnsupportedSpec
from deployers.observation import Phase
from deployers.specs import Network
from tests.deployers.contract import DeployerContract
from tests.deployers.docker_steps import DockerSteps

pytestmark = pytest.mark.docker


class TestDockerByPublishedPort(DockerSteps, DeployerContract):
    options = {"access_host": "localhost"}

    def test_without_network_nothing_outside_is_reached(self, deployer, make_spec):
        with pytest.raises(UnsupportedSpec, match="access host"):
            deployer.validate(make_spec(network=Network.NONE))

    def test_the_port_is_bound_to_the_access_host_alone(self, deployer, make_spec):
        spec = make_spec()
        seen = self.start(deployer, spec)
        assert seen.url == f"http://localhost:{spec.host_port}"
        bound = self.engine.containers.get(spec.name).ports["80/tcp"]
        assert bound == [{"HostIp": "127.0.0.1", "HostPort": str(spec.host_port)}]

    def test_a_port_that_a_stranger_holds_is_told_and_leaves_nothing(self, deployer, make_spec):
        with socket.create_server(("127.0.0.1", 0)) as stranger:
            port = stranger.getsockname()[1]
            spec = make_spec(host_port=port)
            with pytest.raises(PortTaken, match=str(port)) as caught:
                deployer.start(spec)
        assert caught.value.port == port
        assert self.leftovers(deployer) == []

    def test_a_port_of_another_sandbox_is_told_too(self, deployer, make_spec):
        first = make_spec()
        self.start(deployer, first)
        with pytest.raises(PortTaken) as caught:
            deployer.start(make_spec(host_port=first.host_port))
        assert caught.value.port == first.host_port

    def test_an_address_that_is_not_the_engine_s_is_refused(self, deployer, make_spec):
        other = DockerDeployer(instance=deployer.instance, access_host="198.51.100.77")
        with pytest.raises(Rejected, match="access host"):
            other.start(make_spec())
        other.close()
        assert self.leftovers(deployer) == []

    def test_the_network_of_a_stopped_sandbox_is_left_to_it(self, deployer, make_spec):
        spec = make_spec()
        made = deployer.start(spec)
        deployer.stop(spec.name)
        deployer.remove_shared()
        seen = deployer.start(spec)
        assert (seen.phase, seen.container_id) == (Phase.READY, made.container_id)

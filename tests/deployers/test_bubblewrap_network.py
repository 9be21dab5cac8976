from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest

from deployers.bubblewrap import network
from deployers.errors import Unavailable
from deployers.specs import Network
from tests.deployers.local_steps import LocalSteps, processes_that_hold
from tests.waiting import eventually

pytestmark = [
    pytest.mark.bubblewrap,
    pytest.mark.skipif(
        network.missing() is not None, reason=f"outbound network: {network.missing()}"
    ),
]


def own_addresses():
    return network.host_addresses(Path("/proc/net/fib_trie").read_text())


class TestOutbound(LocalSteps):
    def test_outbound_reaches_out_but_not_this_host(self, deployer, make_spec):
        spec = make_spec(network=Network.OUTBOUND)
        self.start(deployer, spec)
        routes = self.inside(deployer, spec.name, "cat /proc/net/route")
        assert any(line.split()[:2] == ["tap0", "00000000"] for line in routes.splitlines())
        assert "nameserver 10.0.2.3" in self.inside(deployer, spec.name, "cat /etc/resolv.conf")
        with socket.create_server(("0.0.0.0", 0)) as listener:
            port = listener.getsockname()[1]
            for address in ("127.0.0.1", "10.0.2.2", *own_addresses()):
                assert self.dial(deployer, spec, (address, port)) != 0, address
        for address in ("169.254.169.254", "10.1.2.3", "172.16.0.9", "192.168.1.1"):
            assert self.dial(deployer, spec, (address, 80)) == errno.EHOSTUNREACH

    def test_outbound_ends_with_the_sandbox(self, deployer, make_spec):
        spec = make_spec(network=Network.OUTBOUND)
        self.start(deployer, spec)
        place = self.state_dir / deployer.instance / spec.name
        assert any("slirp4netns" in line for line in processes_that_hold(place))
        self.let_die(deployer, spec.name)
        assert eventually(lambda: processes_that_hold(place) == [])

    def test_private_networks_can_be_opened_by_the_type(self, deployer, make_spec):
        spec = make_spec(network=Network.OUTBOUND, runtime_config={"private_networks": True})
        self.start(deployer, spec)
        routes = self.inside(deployer, spec.name, "cat /proc/net/route").split()
        closed = {"0000000A": "10.0.0.0", "0000A8C0": "192.168.0.0"}
        assert not closed.keys() & set(routes)
        assert "0000FEA9" in routes

    def test_outbound_carries_connections(self, deployer, make_spec, monkeypatch):
        if not (own := own_addresses()):
            pytest.skip("this host has no address but its loopback")
        # Nothing else is sure to answer here, so this host is not closed for once.
        monkeypatch.setattr(network, "host_addresses", lambda trie: [])
        spec = make_spec(network=Network.OUTBOUND, runtime_config={"private_networks": True})
        self.start(deployer, spec)
        with socket.create_server(("0.0.0.0", 0)) as listener:
            assert self.dial(deployer, spec, (own[0], listener.getsockname()[1])) == 0
            listener.settimeout(5)
            listener.accept()[0].close()

    def test_a_network_that_cannot_be_connected_leaves_nothing(
        self, deployer, make_spec, monkeypatch
    ):
        monkeypatch.setattr(network, "LINK_LOCAL", "not-a-network")
        spec = make_spec(network=Network.OUTBOUND)
        with pytest.raises(Unavailable, match="not-a-network"):
            deployer.start(spec)
        assert self.leftovers(deployer) == []

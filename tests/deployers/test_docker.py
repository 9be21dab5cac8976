from __future__ import annotations

import secrets
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta

import pytest

from deployers.docker import DockerDeployer
from deployers.observation import Phase
from deployers.specs import Limits, Network
from tests.deployers.contract import DeployerContract
from tests.deployers.docker_steps import DockerSteps
from tests.deployers.tiny_image import TINY, build_image
from tests.waiting import eventually

pytestmark = pytest.mark.docker


@contextmanager
def outside():
    """Give the address of a listener on another machine: a network namespace behind a veth."""
    name = f"out{secrets.token_hex(3)}"
    here, there = "198.51.100.1", "198.51.100.2"
    serve = f"use IO::Socket::INET; IO::Socket::INET->new(LocalAddr => '{there}:80', Listen => 9); sleep"
    serve = serve.replace("; IO", "; my $listener = IO")
    steps = [
        f"ip netns add {name}",
        f"ip link add {name}h type veth peer name {name}n netns {name}",
        f"ip addr add {here}/30 dev {name}h",
        f"ip link set {name}h up",
        f"ip -n {name} addr add {there}/30 dev {name}n",
        f"ip -n {name} link set {name}n up",
        f"ip -n {name} route add default via {here}",
    ]
    server = None
    try:
        for step in steps:
            done = subprocess.run(step.split(), capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"no second machine can be made here: {step}: {done.stderr.strip()}")
        server = subprocess.Popen(["ip", "netns", "exec", name, "perl", "-e", serve])
        assert eventually(lambda: connects(there))
        yield there
    finally:
        if server:
            server.kill()
            server.wait()
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def connects(address: str, port: int = 80) -> bool:
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True


def address_of(url: str) -> str:
    return url.removeprefix("http://").partition(":")[0]


class TestDocker(DockerSteps, DeployerContract):
    def assert_no_way_out(self, deployer, name):
        with outside() as address:
            assert not self.connects_from(deployer, name, address)

    def connects_from(self, deployer, name, address) -> bool:
        command = f"timeout 2 bash -c '</dev/tcp/{address}/80'"
        return self.run_inside(deployer, name, command)[0] == 0

    def test_the_network_outbound_leads_outside(self, deployer, make_spec):
        spec = make_spec(network=Network.OUTBOUND)
        self.start(deployer, spec)
        with outside() as address:
            assert self.connects_from(deployer, spec.name, address)

    @pytest.mark.parametrize("network", list(Network))
    def test_sandboxes_do_not_reach_each_other(self, deployer, make_spec, network):
        one, other = make_spec(network=network), make_spec(network=network)
        self.start(deployer, one)
        address = address_of(self.start(deployer, other).url)
        assert connects(address)
        assert not self.connects_from(deployer, one.name, address)

    def test_no_port_is_published(self, deployer, make_spec):
        spec = make_spec()
        self.start(deployer, spec)
        found = self.engine.containers.get(spec.name)
        assert not found.attrs["HostConfig"]["PortBindings"]
        assert deployer.needs_host_port is False

    def test_a_network_that_was_removed_is_made_again(self, deployer, make_spec):
        self.start(deployer, make_spec())
        first = make_spec()
        for container in self.engine.containers.list(filters=self.ours(deployer)):
            container.remove(force=True)
        for network in self.engine.networks.list(filters=self.ours(deployer)):
            network.remove()
        self.start(deployer, first)

    def test_processes_that_need_the_network_at_once_make_one(self, deployer):
        # Each deployer stands for a process: they share nothing but the engine.
        deployers = [DockerDeployer(instance=deployer.instance) for _ in range(4)]
        with ThreadPoolExecutor(4) as threads:
            networks = threads.map(lambda one: one._networks.get(internal=False).id, deployers)
        assert len(set(networks)) == 1
        assert len(self.engine.networks.list(filters=self.ours(deployer))) == 1
        for one in deployers:
            one.close()

    def test_networks_in_use_are_not_removed(self, deployer, make_spec):
        self.start(deployer, make_spec())
        deployer.remove_shared()
        assert len(self.engine.networks.list(filters=self.ours(deployer))) == 1

    def test_a_container_id_is_not_a_name(self, deployer, make_spec):
        seen = self.start(deployer, make_spec())
        short_id = seen.container_id[:12]
        assert deployer.inspect(short_id).phase is Phase.ABSENT
        deployer.remove(short_id)
        assert deployer.inspect(seen.name).phase is Phase.READY

    def test_labels_of_the_spec_do_not_replace_ours(self, deployer, make_spec):
        labels = {"io.sandboxplatform.instance": "other", "team": "blue"}
        spec = make_spec(labels=labels)
        self.start(deployer, spec)
        assert deployer.inspect(spec.name).phase is Phase.READY
        assert self.engine.containers.get(spec.name).labels["team"] == "blue"

    def test_what_a_stranger_stopped_is_broken(self, deployer, make_spec):
        spec = make_spec()
        self.start(deployer, spec)
        self.engine.containers.get(spec.name).stop(timeout=1)
        assert deployer.inspect(spec.name).phase is Phase.BROKEN

    def test_start_repairs_what_a_crash_left_marked_as_stopped(self, deployer, make_spec):
        spec = make_spec()
        self.start(deployer, spec)
        self.engine.containers.get(spec.name).update(restart_policy={"Name": "unless-stopped"})
        deployer.start(spec)
        self.let_die(deployer, spec.name)
        assert eventually(lambda: deployer.inspect(spec.name).phase is Phase.BROKEN)

    def test_what_was_created_long_ago_and_never_started_is_broken(
        self, deployer, make_spec, monkeypatch
    ):
        spec = make_spec()
        self.make_half(deployer, spec)
        assert deployer.inspect(spec.name).phase is Phase.STARTING
        monkeypatch.setattr("deployers.docker.observing.STARTING_FOR", timedelta(0))
        seen = deployer.inspect(spec.name)
        assert seen.phase is Phase.BROKEN
        assert "never started" in seen.detail

    def test_the_kernel_s_kill_for_memory_is_told(self, deployer, make_spec):
        spec = make_spec(limits=Limits(memory_mb=64))
        self.start(deployer, spec)
        self.run_inside(deployer, spec.name, "head -c 200m /dev/zero | tail | wc -c")
        self.let_die(deployer, spec.name)
        assert eventually(lambda: deployer.inspect(spec.name).phase is Phase.BROKEN)
        detail = deployer.inspect(spec.name).detail
        assert "out of memory (limit 64 MB)" in detail
        assert "Raise the memory" in detail

    def test_a_command_that_is_missing_is_told(self, deployer, make_spec, tmp_path):
        (tmp_path / "Dockerfile").write_text(f'FROM {TINY}\nCMD ["/no/such/program"]\n')
        image_id = build_image(deployer, tmp_path)
        spec = make_spec(image=image_id)
        try:
            deployer.start(spec)
            assert eventually(lambda: deployer.inspect(spec.name).phase is Phase.BROKEN)
            assert "its command was not found" in deployer.inspect(spec.name).detail
            assert "/no/such/program" in deployer.logs(spec.name)
            deployer.remove(spec.name)
        finally:
            deployer.remove_image(image_id)

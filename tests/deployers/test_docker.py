from __future__ import annotations

import gc
import os
import secrets
import socket
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Event

import pytest

from deployers.base import Limits, Network, Phase, SandboxSpec
from deployers.docker import DockerDeployer
from deployers.docker.engine import refusal
from deployers.errors import PortTaken, Rejected, Unavailable, UnsupportedSpec
from tests.deployers.contract import DeployerContract
from tests.deployers.docker_steps import DockerSteps, call_as
from tests.deployers.tiny_image import TINY, build_image
from tests.waiting import eventually

pytestmark = pytest.mark.docker

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


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


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
class TestEngine:
    @pytest.fixture(autouse=True)
    def _collect(self):
        # The SDK forgets to close a socket on which it could not connect.
        yield
        gc.collect()

    def test_check_names_version_and_address(self):
        deployer = DockerDeployer(instance="test-check")
        assert deployer.check().startswith("Docker ")
        assert "docker.sock" in deployer.check()
        deployer.remove_shared()
        deployer.close()

    def test_an_engine_that_is_not_there_is_unavailable(self, tmp_path):
        deployer = DockerDeployer(instance="test-gone", base_url=f"unix://{tmp_path}/no.sock")
        with pytest.raises(Unavailable, match="systemctl start docker"):
            deployer.check()
        with pytest.raises(Unavailable, match="look at some-name"):
            deployer.inspect("some-name")
        with pytest.raises(Unavailable, match="tell which of its containers ended"):
            deployer.watch(Event())

    def test_an_engine_that_does_not_answer_is_given_up_in_time(self, tmp_path):
        address = str(tmp_path / "hung.sock")
        with socket.socket(socket.AF_UNIX) as hung:
            hung.bind(address)
            hung.listen()
            deployer = DockerDeployer(
                instance="test-hung", base_url=f"unix://{address}", call_timeout=0.3
            )
            began = time.monotonic()
            with pytest.raises(Unavailable, match=r"did not answer within 0\.3 s"):
                deployer.remove("some-name")
            assert time.monotonic() - began < 2
            deployer.close()

    @needs_root
    def test_a_user_who_may_not_use_the_engine_is_told_the_group(self):
        said = call_as(65534, [], DockerDeployer(instance="test-denied").check)
        assert said.startswith("Rejected: ")
        assert "group docker" in said

    def test_a_remote_engine_is_reached_at_its_own_host(self):
        deployer = DockerDeployer(instance="test-far", base_url="tcp://192.0.2.99:2375")
        assert deployer.needs_host_port
        assert deployer.access_host == "192.0.2.99"
        assert not deployer.supports_mounts
        spec = SandboxSpec(name="far", image="any", host_port=5000, workspace=Path("/tmp"))
        with pytest.raises(UnsupportedSpec, match="mount"):
            deployer.validate(spec)

    def test_a_secret_that_the_engine_repeats_is_hidden(self):
        answer = "invalid environment variable: TOKEN=very-secret"
        error = refusal(answer, "create x", 400, hide=("very-secret",))
        assert isinstance(error, Rejected)
        assert str(error) == "Docker could not create x: invalid environment variable: TOKEN=***."

    def test_docker_host_is_honoured(self, monkeypatch, tmp_path):
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/elsewhere.sock")
        with pytest.raises(Unavailable, match=r"elsewhere\.sock"):
            DockerDeployer(instance="test-env").check()


class TestOwner(DockerSteps):
    @needs_root
    def test_root_gives_its_files_to_the_image_s_user(self, deployer, make_spec, tmp_path):
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "file").write_text("a")
        secret = tmp_path.parent / "outside-secret"
        secret.write_text("s")
        (tmp_path / "link").symlink_to(secret)
        spec = make_spec(workspace=tmp_path)
        self.start(deployer, spec)
        self.inside(deployer, spec.name, "echo b >> /workspace/sub/file; touch /workspace/sub/new")
        assert (tmp_path / "sub" / "new").stat().st_uid == 1000
        assert secret.stat().st_uid == 0

    @needs_root
    def test_a_workspace_of_somebody_else_keeps_its_owner(self, deployer, make_spec, tmp_path):
        os.chown(tmp_path, 4321, 4321)
        spec = make_spec(workspace=tmp_path)
        self.start(deployer, spec)
        assert self.inside(deployer, spec.name, "touch /workspace/new; id -u") == "4321"
        assert (tmp_path / "new").stat().st_uid == 4321

    @needs_root
    def test_an_ordinary_user_owns_what_its_sandboxes_write(self, deployer, make_spec):
        uid, docker_group = 2345, Path("/var/run/docker.sock").stat().st_gid

        def write() -> str:
            with tempfile.TemporaryDirectory() as directory:
                mine = DockerDeployer(instance=deployer.instance)
                spec = make_spec(workspace=Path(directory))
                self.start(mine, spec)
                self.inside(
                    mine, spec.name, "mkdir -m 700 /workspace/d; echo $HOME >/workspace/d/f"
                )
                written = Path(directory, "d", "f")
                mine.remove(spec.name)
                return f"{written.read_text().strip()} {written.stat().st_uid}"

        assert call_as(uid, [docker_group], write) == f"/tmp {uid}"

    def test_a_workspace_that_is_missing_is_refused(self, deployer, make_spec, tmp_path):
        with pytest.raises(Rejected, match="Create it"):
            deployer.start(make_spec(workspace=tmp_path / "missing"))

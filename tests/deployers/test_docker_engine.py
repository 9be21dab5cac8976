"""How the engine is reached, and what is said when it is not."""

from __future__ import annotations

import gc
import socket
import time
from pathlib import Path
from threading import Event

import pytest

from deployers.docker import DockerDeployer
from deployers.docker.engine import refusal
from deployers.errors import Rejected, Unavailable, UnsupportedSpec
from deployers.specs import SandboxSpec
from tests.deployers.docker_steps import call_as, needs_root

pytestmark = pytest.mark.docker


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

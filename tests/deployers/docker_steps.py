"""The contract's hooks for a real Docker engine, shared by the Docker tests."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import contextmanager

import docker
import pytest

from deployers.docker import DockerDeployer
from deployers.docker.body import container_body
from deployers.docker.networks import INSTANCE_LABEL
from tests.deployers.contract.calls import fetch
from tests.deployers.contract.steps import DeployerSteps
from tests.deployers.tiny_image import TINY, ensure_tiny_image

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


class DockerSteps(DeployerSteps):
    image = TINY
    options: dict[str, object] = {}

    @pytest.fixture
    def deployer(self):
        ensure_tiny_image()
        self.engine = docker.from_env()
        deployer = DockerDeployer(instance=f"test-{secrets.token_hex(4)}", **self.options)
        yield deployer
        deployer.remove_shared()
        left = self.engine.networks.list(filters=self.ours(deployer))
        deployer.close()
        self.engine.close()
        assert left == []

    def ours(self, deployer):
        return {"label": f"{INSTANCE_LABEL}={deployer.instance}"}

    def other_instance(self, deployer):
        return ThrowAwayDeployer(instance=f"{deployer.instance}-b", **self.options)

    def run_inside(self, deployer, name, command):
        url = deployer.inspect(name).url
        body = command.encode()
        _, headers, output = fetch(url, "/run", method="POST", body=body, timeout=30)
        return int(headers["x-exit-code"]), output.decode()

    def let_die(self, deployer, name):
        fetch(deployer.inspect(name).url, "/exit", method="POST", body=b"7")
        return 7

    def say(self, deployer, name, line):
        fetch(deployer.inspect(name).url, "/say", method="POST", body=line.encode())

    def make_half(self, deployer, spec):
        network = deployer._networks.get(internal=False)
        publish_at = "127.0.0.1" if spec.host_port else ""
        body = container_body(
            spec, instance=deployer.instance, network_id=network.id, publish_at=publish_at
        )
        self.engine.api.create_container_from_config(body, spec.name)

    @contextmanager
    def make_foreign(self, deployer, spec):
        stranger = self.engine.containers.run(TINY, "sleep 60", name=spec.name, detach=True)
        try:
            yield lambda: self.engine.containers.get(stranger.id).status == "running"
        finally:
            stranger.remove(force=True)

    def leftovers(self, deployer):
        found = self.engine.containers.list(all=True, filters=self.ours(deployer))
        return [container.name for container in found]


class ThrowAwayDeployer(DockerDeployer):
    """Takes its networks along when it is closed."""

    def close(self):
        self.remove_shared()
        super().close()


def call_as(uid: int, groups: list[int], call: Callable[[], object]) -> str:
    """Call it in a fork that runs as another user; return the text of its answer or error."""
    # A fork, because the interpreter of the tests may lie where that user cannot read it.
    answer, said = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(groups)
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            text = str(call())
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(said, text.encode())
        os._exit(0)
    os.close(said)
    with os.fdopen(answer) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text

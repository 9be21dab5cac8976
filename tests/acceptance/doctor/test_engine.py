"""The engine, and the sandbox that it starts."""

from __future__ import annotations

import os
import secrets
import signal
import time

import pytest

from deployers.docker import DockerDeployer
from tests.acceptance.doctor.running import NOWHERE, docker, look, manage, rows, states, workspaces
from tests.deployers.tiny_image import build_image
from tests.ports import free_port
from tests.waiting import wait_until


def test_an_engine_that_is_not_there_fails_and_skips_the_sandbox(place):
    code, checks = look(place, "sandbox", CONTAINER_DEPLOYMENT="docker", **NOWHERE)
    assert code == 1
    assert "CONTAINER_DEPLOYMENT names docker" in checks["engine"]["found"]
    assert "/nonexistent.sock" in checks["engine"]["fix"]
    assert checks["sandbox"]["found"] == "needs engine, which failed"


def test_neither_engine_nor_bubblewrap_names_both_ways_out(place, tmp_path):
    code, checks = look(place, "engine", PATH=str(tmp_path), **NOWHERE)
    assert code == 1
    assert "/nonexistent.sock" in checks["engine"]["fix"]
    assert "install bubblewrap" in checks["engine"]["fix"]


@pytest.mark.base_image
def test_docker_with_published_ports_is_reached_through_a_leased_one(place):
    low = free_port()
    settings = {"SANDBOX_ACCESS_HOST": "127.0.0.1", "PORT_RANGE": f"[{low},{low + 20}]"}
    code, checks = look(place, "ports", "sandbox", CONTAINER_DEPLOYMENT="docker", **settings)
    assert code == 0, checks
    assert "0 of the 20 ports" in checks["ports"]["found"]
    assert checks["sandbox"]["status"] == "ok"


@pytest.fixture
def silent_image(tmp_path):
    """An image whose container runs, and whose guest never answers."""
    (tmp_path / "Dockerfile").write_text('FROM debian:bookworm-slim\nCMD ["sleep", "600"]\n')
    deployer = DockerDeployer(instance=f"test-{secrets.token_hex(4)}")
    tag = f"sandboxplatform-test-silent:{secrets.token_hex(4)}"
    image = build_image(deployer, tmp_path, tag)
    yield tag
    deployer.remove_image(image)
    deployer.close()


@pytest.fixture
def silent_type(place, silent_image):
    """A sandbox type of that image in the test's installation."""
    make = (
        "from sandboxes.models import SandboxType\n"
        f"SandboxType.objects.create(name='silent', image={silent_image!r})"
    )
    process = manage(place, "shell", "-c", make)
    said, complained = process.communicate(timeout=60)
    assert process.returncode == 0, said + complained
    return {"CONTAINER_DEPLOYMENT": "docker", "DEFAULT_SANDBOX_TYPE": "silent"}


def containers_of(image):
    return docker("ps", "-aq", "--filter", f"ancestor={image}").split()


@pytest.mark.docker
def test_a_guest_that_never_answers_fails_with_stage_and_setting(place, silent_type, silent_image):
    code, checks = look(place, "sandbox", CREATE_TIMEOUT="2", **silent_type)
    assert code == 1
    assert "it did not start" in checks["sandbox"]["found"]
    assert "its guest did not answer in time" in checks["sandbox"]["fix"]
    assert "SANDBOX_ACCESS_HOST" in checks["sandbox"]["fix"]
    assert states(place) == ["stopped"]
    assert containers_of(silent_image) == []


@pytest.mark.docker
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_ends_it_with_nothing_left(place, silent_type, silent_image, number):
    process = manage(place, "doctor", "--only", "sandbox", **silent_type)
    deadline = time.monotonic() + 60
    while not containers_of(silent_image):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
    os.kill(process.pid, number)
    said, complained = process.communicate(timeout=60)
    assert process.returncode == 130, said + complained
    assert "Interrupted" in complained
    assert "Traceback" not in complained
    assert states(place) == ["stopped"]
    assert containers_of(silent_image) == []
    assert workspaces(place) == []


@pytest.mark.docker
def test_one_that_is_killed_leaves_a_sandbox_that_ends_by_itself(place, silent_type, silent_image):
    process = manage(place, "doctor", "--only", "sandbox", **silent_type)
    wait_until(lambda: containers_of(silent_image) or process.poll() is not None)
    process.kill()
    process.communicate(timeout=60)
    assert rows(place, "SELECT expires_at IS NOT NULL FROM sandboxes_sandbox") == [1]
    # What its lifetime would bring about.
    reap = manage(place, "reapsandboxes", "--once", **silent_type)
    reap.communicate(timeout=60)
    assert reap.returncode == 0
    assert containers_of(silent_image) == []

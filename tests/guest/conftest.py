from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.guest.mcp_calls import TOOLS
from tests.guest.running import RunningGuest
from tests.guest.workspace_calls import Workspace
from tests.ports import free_port, is_served
from tests.waiting import wait_until


@pytest.fixture(scope="session")
def guest(tmp_path_factory):
    """One guest for every test that leaves it as it was."""
    with RunningGuest(tmp_path_factory.mktemp("guest")) as running:
        yield running


@pytest.fixture
def start_guest(tmp_path):
    """Start guests of a test's own; keyword arguments are environment variables."""
    started = []

    def start(**environment: str) -> RunningGuest:
        home = tmp_path / f"guest{len(started)}"
        home.mkdir()
        running = RunningGuest(home, **environment)
        started.append(running)
        return running.start()

    yield start
    for running in started:
        running.stop()
        running.empty_workspace()  # some tests write gigabytes, and pytest keeps tmp_path


@pytest.fixture
def workspace(guest):
    """The workspace of the shared guest, emptied before the test."""
    guest.empty_workspace()
    return guest.workspace


@pytest.fixture
def fs(guest, workspace):
    """The endpoints of that workspace."""
    return Workspace(guest)


@pytest.fixture
def http_server():
    """Start servers that speak HTTP; call with the transport, get its URL and its process."""
    started = []

    def start(transport):
        port = free_port()
        process = subprocess.Popen(
            [sys.executable, TOOLS, transport, str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        started.append(process)
        wait_until(lambda: is_served(port), seconds=60)
        return f"http://127.0.0.1:{port}", process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def unbound_guest(tmp_path_factory):
    with RunningGuest(tmp_path_factory.mktemp("unbound")) as guest:
        yield guest


@pytest.fixture
def unbound(unbound_guest):
    """A guest with an empty workspace, for tests that bind nothing to it."""
    unbound_guest.empty_workspace()
    return unbound_guest


@pytest.fixture
def make_config(tmp_path):
    """Write a file of configured MCP servers and return its path."""

    def make(**servers):
        path = tmp_path / "mcp_servers.json"
        path.write_text(json.dumps({"mcpServers": servers}))
        return str(path)

    return make

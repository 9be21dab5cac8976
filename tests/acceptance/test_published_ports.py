"""SANDBOX_ACCESS_HOST: sandboxes reached through leased ports of the loopback."""

from __future__ import annotations

import json
import socket
import subprocess

import pytest

from tests.ports import free_port

pytestmark = pytest.mark.base_image


def published(name):
    done = subprocess.run(
        ["docker", "inspect", "-f", "{{json .NetworkSettings.Ports}}", name],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    (bindings,) = [ports for ports in json.loads(done.stdout).values() if ports]
    return {(binding["HostIp"], int(binding["HostPort"])) for binding in bindings}


def test_a_sandbox_gets_one_port_on_the_loopback_and_gives_it_back(make_server):
    low = free_port()
    server = make_server(
        CONTAINER_DEPLOYMENT="docker",
        SANDBOX_ACCESS_HOST="127.0.0.1",
        PORT_RANGE=f"[{low},{low + 2}]",
    )
    with socket.socket() as stranger:
        # One of the two ports is taken by another program, so both creates below need the other.
        stranger.bind(("127.0.0.1", low))
        stranger.listen()
        server.start()
        for _ in range(2):
            name = server.create()
            assert server.shell(name, "echo here") == "here\n"
            _, answer = server.rpc("get_info", identity=name)
            assert answer["data"]["ports"] == [low + 1]
            assert answer["data"]["url"] == f"http://127.0.0.1:{low + 1}"
            assert published(name) == {("127.0.0.1", low + 1)}
            server.rpc("stop", identity=name)
            server.rpc("start", identity=name)
            assert server.shell(name, "echo again") == "again\n"
            assert server.rpc("release", identity=name) == (200, {"data": True})
    assert server.stop() == 0

"""The server's port, and those of sandboxes."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from sandboxes.models import PortLease
from sandboxes.states import State
from sandboxplatform.doctor.findings import Status
from tests.factories import make_sandbox
from tests.sandboxplatform.doctor.looking import examined


@pytest.fixture
def taken_port():
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        yield stranger.getsockname()[1]


def test_the_servers_port_in_other_hands_fails(fake, subject, taken_port):
    subject.platform.PORT = taken_port
    result = examined(subject, "ports")["ports"]
    assert result.status is Status.FAIL
    assert f"127.0.0.1:{taken_port} is taken by another program" in result.found
    assert "PORT" in result.fixes[0]


def test_an_address_of_another_machine_fails(fake, subject):
    subject.platform.HOST = "192.0.2.1"
    result = examined(subject, "ports")["ports"]
    assert result.status is Status.FAIL
    assert "Set HOST to an address of this machine." in result.fixes[0]


def test_sandboxes_ports_in_other_hands_fail(fake, subject, taken_port):
    fake.needs_host_port = True
    subject.platform.PORT_RANGE = (taken_port, taken_port + 1)
    result = examined(subject, "ports")["ports"]
    assert "none of 1 ports that were tried is free" in result.found
    assert "PORT_RANGE" in result.fixes[0]


def test_a_range_that_is_all_leased_fails(fake, subject):
    fake.needs_host_port = True
    subject.platform.PORT_RANGE = (20000, 20001)
    PortLease.objects.create(port=20000, sandbox=make_sandbox(State.RUNNING))
    result = examined(subject, "ports")["ports"]
    assert "all 1 ports of PORT_RANGE [20000,20001] are leased" in result.found


def test_a_range_that_the_kernel_uses_too_is_a_warning(fake, subject):
    fake.needs_host_port = True
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    subject.platform.PORT_RANGE = (low, high + 1)
    result = examined(subject, "ports")["ports"]
    assert f"kernel's range for outgoing connections ({low}-{high})" in result.found
    assert any("ip_local_reserved_ports" in fix for fix in result.fixes)

"""Each sandbox that needs a port of this host has one for itself."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from deployers.errors import PortTaken
from sandboxes import actions, lifecycle, workspaces
from sandboxes.models import PortLease
from sandboxes.refusals import Ended
from tests.endings import nothing_is_left, release

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_port_is_leased_and_given_back(fake, alice):
    fake.needs_host_port = True
    sandbox = actions.create(alice)
    assert PortLease.objects.get().sandbox == sandbox
    release(alice, sandbox)
    assert nothing_is_left(fake)


def test_a_halted_sandbox_keeps_its_port(fake, alice):
    fake.needs_host_port = True
    sandbox = actions.create(alice)
    port = PortLease.objects.get().port
    actions.halt(alice, sandbox.name)
    actions.resume(alice, sandbox.name)
    assert PortLease.objects.get().port == port


def test_a_port_that_a_stranger_holds_is_skipped(fake, alice):
    fake.needs_host_port, tried = True, []

    def taken_once(name):
        tried.append(PortLease.objects.get().port)
        return PortTaken("in use", port=tried[0]) if len(tried) == 1 else None

    fake.fail_start = taken_once
    actions.create(alice)
    assert len(tried) == 2
    assert PortLease.objects.get().port == tried[1]


def test_one_that_is_ended_before_it_has_a_port_gets_none(fake, alice, monkeypatch):
    fake.needs_host_port = True
    make = workspaces.make

    def end_meanwhile(sandbox):
        make(sandbox)
        assert actions.cleanup(alice) == 1

    monkeypatch.setattr(workspaces, "make", end_meanwhile)
    with pytest.raises(Ended, match="ended by another request"):
        actions.create(alice)
    assert nothing_is_left(fake)
    assert not fake.calls["start"]


def test_a_full_port_range_is_named(fake, alice, platform):
    platform.PORT_RANGE, fake.needs_host_port = (20000, 20001), True
    actions.create(alice)
    with pytest.raises(lifecycle.StartFailed, match="All 1 ports of PORT_RANGE"):
        actions.create(alice)


def test_parallel_creates_get_distinct_ports(fake, alice, platform, in_thread):
    platform.PORT_RANGE, fake.needs_host_port = (20000, 20008), True
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(in_thread(lambda _: actions.create(alice)), range(8)))
    assert sorted(PortLease.objects.values_list("port", flat=True)) == list(range(20000, 20008))

"""When a lent sandbox ends by itself: its own idle limit, its lifetime, and what puts both off."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from sandboxes import actions, reaper
from sandboxes.models import Sandbox, SandboxType, Session
from sandboxes.refusals import Ended, Refused
from sandboxes.states import State, StopReason
from sandboxes.wire.records import record
from tests.factories import let_work_behind_end, make_warm
from tests.sandboxes.sessions import let_time_pass, recycled, touch

pytestmark = pytest.mark.django_db(transaction=True)

MINUTE = timedelta(minutes=1)


def reap():
    report = reaper.reap()
    let_work_behind_end()
    return report


def test_a_sandbox_without_a_session_is_not_ended_by_the_heartbeat(fake, alice):
    actions.create(alice)
    let_time_pass()
    assert not reap()


def test_a_sandbox_without_a_session_ends_by_its_own_idle_limit_for_good(fake, alice):
    sandbox = actions.create(alice, idle_limit=MINUTE)
    let_time_pass(MINUTE / 2)
    assert not reap()
    let_time_pass(2 * MINUTE)
    assert reap().idle == [sandbox.name]
    row = Sandbox.objects.get()
    assert (row.state, row.stop_reason) == (State.STOPPED, StopReason.IDLE)
    assert not Path(row.workspace).exists()
    assert record(actions.find(alice, row.name))["state"] == "released"
    with pytest.raises(Ended, match="idle"):
        touch(alice, sandbox.name)


def test_an_idle_limit_of_its_own_counts_instead_of_the_heartbeat(fake, alice, platform):
    platform.HEARTBEAT_TIMEOUT = 120
    short = actions.create(alice, session_key="a", idle_limit=MINUTE)
    long = actions.create(alice, session_key="b", idle_limit=60 * MINUTE)
    default = actions.create(alice, session_key="c")
    let_time_pass(1.5 * MINUTE)
    assert reap().idle == [short.name]
    let_time_pass(3 * MINUTE)
    assert reap().idle == [default.name]
    let_time_pass(61 * MINUTE)
    assert reap().idle == [long.name]


def test_an_idle_limit_is_kept_by_a_restoring(fake, alice):
    old = recycled(alice, idle_limit=MINUTE)
    touch(alice, old.name)
    assert Sandbox.objects.get(state=State.RUNNING).idle_limit == MINUTE


def test_an_idle_limit_counts_for_halted_ones_no_more(fake, alice):
    sandbox = actions.create(alice, session_key="s", idle_limit=MINUTE)
    actions.halt(alice, sandbox.name)
    let_time_pass()
    assert not reap()


def test_a_sandbox_ends_when_its_lifetime_is_over(fake, alice):
    mortal = actions.create(alice, lifetime=MINUTE)
    actions.create(alice)
    assert not reap()
    Sandbox.objects.exclude(expires_at=None).update(expires_at=timezone.now())
    assert reap().expired == [mortal.name]
    row = Sandbox.objects.get(pk=mortal.pk)
    assert (row.state, row.stop_reason) == (State.STOPPED, StopReason.EXPIRED)
    assert not Path(row.workspace).exists()
    assert Sandbox.objects.filter(state=State.RUNNING).count() == 1


def test_a_lifetime_ends_one_that_is_used_and_one_that_is_halted(fake, alice):
    used = actions.create(alice, session_key="s", lifetime=MINUTE)
    halted = actions.create(alice, lifetime=MINUTE)
    actions.halt(alice, halted.name)
    Sandbox.objects.update(expires_at=timezone.now())
    assert set(reap().expired) == {used.name, halted.name}


def test_the_lifetime_of_a_type_begins_when_a_warm_one_is_lent(fake, alice):
    make_warm()
    SandboxType.objects.update(lifetime_seconds=60)
    before = timezone.now()
    assert actions.create(alice).expires_at >= before + MINUTE


def test_a_recycled_one_is_restored_no_more_when_its_lifetime_is_over(fake, alice):
    old = recycled(alice, lifetime=MINUTE)
    Sandbox.objects.update(expires_at=timezone.now())
    reap()
    with pytest.raises(Ended, match="expired"):
        touch(alice, old.name)
    assert not Path(old.workspace).exists()


def test_keep_alive_counts_as_a_call(fake, alice):
    in_session = actions.create(alice, session_key="s")
    alone = actions.create(alice, idle_limit=MINUTE)
    let_time_pass()
    for sandbox in (in_session, alone):
        actions.keep_alive(alice, sandbox.name)
    assert not reap()
    now = timezone.now()
    assert now - Session.objects.get().last_active_at < MINUTE


def test_keep_alive_lets_it_end_later_or_sooner(fake, alice):
    sandbox = actions.create(alice, lifetime=MINUTE)
    for lifetime in (10 * MINUTE, MINUTE / 2):
        before = timezone.now()
        kept = actions.keep_alive(alice, sandbox.name, lifetime=lifetime)
        assert before + lifetime <= kept.expires_at <= timezone.now() + lifetime


def test_keep_alive_goes_no_further_than_the_type_allows(fake, alice):
    SandboxType.objects.update(lifetime_seconds=60)
    sandbox = actions.create(alice)
    with pytest.raises(Refused, match="live at most 60 s") as caught:
        actions.keep_alive(alice, sandbox.name, lifetime=2 * MINUTE)
    assert caught.value.field == "lifetime_seconds"
    assert Sandbox.objects.get().expires_at == sandbox.expires_at


@pytest.mark.parametrize("restored", [False, True])
def test_keep_alive_does_not_put_off_the_end_of_the_types_lifetime(fake, alice, restored):
    SandboxType.objects.update(lifetime_seconds=600)
    sandbox = actions.create(alice, session_key="s")
    lent_at = timezone.now() - 8 * MINUTE
    Sandbox.objects.update(claimed_at=lent_at, expires_at=lent_at + 10 * MINUTE)
    if restored:
        Session.objects.update(last_active_at=lent_at)
        assert reap().idle == [sandbox.name]
        touch(alice, sandbox.name)
    kept = actions.keep_alive(alice, sandbox.name, lifetime=9 * MINUTE)
    assert kept.expires_at == lent_at + 10 * MINUTE
    sooner = actions.keep_alive(alice, sandbox.name, lifetime=MINUTE)
    assert sooner.expires_at < lent_at + 10 * MINUTE


def test_keep_alive_is_refused_where_the_types_lifetime_is_over(fake, alice):
    SandboxType.objects.update(lifetime_seconds=60)
    sandbox = actions.create(alice)
    Sandbox.objects.update(claimed_at=timezone.now() - 2 * MINUTE)
    with pytest.raises(Refused, match="live at most 60 s, and this one's time is over") as caught:
        actions.keep_alive(alice, sandbox.name, lifetime=MINUTE / 2)
    assert caught.value.field == "lifetime_seconds"
    assert Sandbox.objects.get().expires_at == sandbox.expires_at


def test_one_that_was_called_meanwhile_is_not_recycled_twice(fake, alice, monkeypatch):
    sandbox = actions.create(alice, session_key="s")
    let_time_pass()
    read_before = Sandbox.objects.get()
    assert reap().idle == [sandbox.name]
    assert not actions.recycle(read_before, actor="reaper")

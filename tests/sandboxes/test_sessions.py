"""Sandboxes of an idle session are put to rest and come back at the next touch."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pytest

from deployers.errors import Unavailable
from sandboxes import actions, behind, heartbeat, lifecycle, reaper
from sandboxes.models import Event, PortLease, Sandbox, Session
from sandboxes.refusals import CapReached, Ended, Unknown
from sandboxes.states import State, StopReason
from sandboxes.wire.records import record
from tests.factories import let_work_behind_end, make_caller, make_warm
from tests.sandboxes.sessions import let_time_pass, recycle_all, recycled, row_of, touch
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def live():
    return Sandbox.objects.exclude(state=State.STOPPED)


def test_an_idle_session_is_recycled_and_its_files_are_kept(fake, alice):
    fake.needs_host_port = True
    sandbox = actions.create(alice, session_key="s")
    Path(sandbox.workspace, "file").write_text("precious")
    assert recycle_all().idle == [sandbox.name]
    row = Sandbox.objects.get()
    assert (row.state, row.stop_reason) == (State.STOPPED, StopReason.IDLE)
    assert row.session.key == "s"
    assert Path(row.workspace, "file").read_text() == "precious"
    assert not list(fake.inspect_all())
    assert not PortLease.objects.exists()


@pytest.mark.parametrize("restored", [False, True])
def test_one_that_took_longer_to_start_than_its_session_may_be_idle_is_not_idle(
    fake, alice, monkeypatch, restored
):
    if restored:
        old = recycled(alice)
    wait = lifecycle.wait_until_ready

    def wait_long(*args, **kwargs):
        let_time_pass()
        return wait(*args, **kwargs)

    monkeypatch.setattr(lifecycle, "wait_until_ready", wait_long)
    if restored:
        actions.restore(old.name, actor="test")
    else:
        actions.create(alice, session_key="s")
    assert not reaper.reap()
    assert live().get().state == State.RUNNING


def test_a_restored_one_that_is_halted_starts_again_under_both_ids(fake, alice):
    old = recycled(alice)
    heir = actions.restore(old.name, actor="test")
    for identity in (heir.name, old.name):
        actions.halt(alice, identity)
        actions.resume(alice, identity)
        assert touch(alice, old.name).name == heir.name


def test_the_wire_calls_it_recycled_and_says_when_and_why(fake, alice):
    row = recycled(alice)
    seen = record(actions.find(alice, row.name))
    assert seen["state"] == "recycled"
    assert seen["recycled_at"] == row.stopped_at.timestamp()
    assert (seen["released_at"], seen["redirect_to"]) == (None, None)
    assert seen["recycle_reason"]
    assert seen["session_ctx_id"] == "s"


def test_a_session_that_was_active_within_the_timeout_stays(fake, alice, platform):
    actions.create(alice, session_key="s")
    let_time_pass(timedelta(seconds=platform.HEARTBEAT_TIMEOUT - 10))
    assert not reaper.reap().idle
    # Calls are noted some seconds late.
    let_time_pass(timedelta(seconds=platform.HEARTBEAT_TIMEOUT) + heartbeat.lag() / 2)
    assert not reaper.reap().idle
    let_time_pass(timedelta(seconds=platform.HEARTBEAT_TIMEOUT + 10))
    assert reaper.reap().idle


def test_a_dry_run_recycles_nothing(fake, alice):
    sandbox = actions.create(alice, session_key="s")
    let_time_pass()
    assert reaper.reap(dry_run=True).idle == [sandbox.name]
    assert Sandbox.objects.get().state == State.RUNNING


def test_nothing_is_recycled_with_a_timeout_of_0(fake, alice, platform):
    platform.HEARTBEAT_TIMEOUT = 0
    actions.create(alice, session_key="s")
    let_time_pass()
    assert not reaper.reap()


def test_a_touch_restores_it_with_its_files_under_the_old_id(fake, alice):
    old = recycled(alice, environment={"A": "b"}, labels={"c": "d"}, meta={"e": 1})
    Path(old.workspace, "file").write_text("precious")
    place = touch(alice, old.name)
    new = row_of(place)
    assert new.pk != old.pk
    assert (new.state, new.session_id, new.owner_id) == (
        State.RUNNING,
        old.session_id,
        alice.user_id,
    )
    assert (new.environment, new.labels, new.meta) == ({"A": "b"}, {"c": "d"}, {"e": 1})
    assert new.workspace == old.workspace
    assert Path(new.workspace, "file").read_text() == "precious"
    assert new.timeline["because"] == f"it restores {old.name}"
    assert touch(alice, old.name).name == touch(alice, old.key).name == new.name
    seen = record(actions.find(alice, old.name))
    assert (seen["state"], seen["redirect_to"]) == ("replaced", new.name)


def test_a_restored_session_is_active_again(fake, alice):
    touch(alice, recycled(alice).name)
    assert not reaper.reap()


def test_a_touch_brings_the_whole_session_back(fake, alice):
    first, second = (actions.create(alice, session_key="s") for _ in range(2))
    other = actions.create(alice, session_key="other")
    assert len(recycle_all().idle) == 3
    touch(alice, first.name)
    let_work_behind_end()
    rows = {row.name: row for row in Sandbox.objects.select_related("replaced_by")}
    for name in (first.name, second.name):
        assert rows[name].replaced_by.state == State.RUNNING
    assert rows[other.name].replaced_by is None
    assert live().count() == 2


def test_the_rest_of_a_session_waits_for_the_one_that_was_touched(fake, alice):
    first, _ = (actions.create(alice, session_key="s") for _ in range(2))
    recycle_all()
    fake.fail_start = Unavailable("the engine is away")
    with pytest.raises(lifecycle.StartFailed):
        touch(alice, first.name)
    let_work_behind_end()
    assert fake.calls["start"] == 3


def test_the_rest_of_a_session_keeps_no_removal_waiting(fake, alice):
    names = [actions.create(alice, session_key="s").name for _ in range(behind.THREADS + 1)]
    recycle_all()
    other = actions.create(alice)
    start, starting, go_on = fake.start, [], threading.Event()

    def start_and_wait(spec):
        starting.append(spec.name)
        # The first is the one that was touched.
        assert len(starting) == 1 or go_on.wait(30)
        return start(spec)

    fake.start = start_and_wait
    touch(alice, names[0])
    try:
        wait_until(lambda: len(starting) > 1)
        actions.release(alice, other.name)
        wait_until(lambda: Sandbox.objects.get(pk=other.pk).state == State.STOPPED, seconds=10)
    finally:
        go_on.set()
    let_work_behind_end()
    assert live().count() == len(names)


def test_the_ids_of_two_recyclings_lead_to_the_newest_in_one_step(fake, alice):
    first = recycled(alice)
    second = touch(alice, first.name)
    assert second.name in recycle_all().idle
    third = touch(alice, first.name)
    assert len({first.name, second.name, third.name}) == 3
    led = Sandbox.objects.filter(name__in=[first.name, second.name])
    assert set(led.values_list("replaced_by__name", flat=True)) == {third.name}
    assert touch(alice, second.name).name == third.name
    assert live().get().name == third.name
    # The folder has one owner, the newest.
    assert Sandbox.objects.get(owns_workspace=True).name == third.name
    assert row_of(third).workspace == first.workspace


def test_a_restoring_that_fails_can_be_tried_again(fake, alice):
    old = recycled(alice)
    Path(old.workspace, "file").write_text("precious")
    fake.fail_start = Unavailable("the engine is away")
    for _ in range(2):
        with pytest.raises(lifecycle.StartFailed, match="the engine is away"):
            touch(alice, old.name)
    old.refresh_from_db()
    assert old.can_be_restored
    assert not live()
    fake.fail_start = None
    place = touch(alice, old.name)
    assert Path(row_of(place).workspace, "file").read_text() == "precious"


def test_others_cannot_touch_what_is_not_theirs(fake, alice, bob):
    old = recycled(alice)
    with pytest.raises(Unknown):
        touch(bob, old.name)
    with pytest.raises(Unknown):
        actions.keep_alive(bob, old.name)
    actions.release(bob, old.name)
    old.refresh_from_db()
    assert old.can_be_restored
    assert Sandbox.objects.count() == 1
    place = touch(alice, old.name)
    with pytest.raises(Unknown):
        touch(bob, place.name)


def test_a_restoring_keeps_to_the_cap(fake, alice, bob, platform):
    old = recycled(alice)
    platform.MAX_SANDBOX_INSTANCES = 1
    theirs = actions.create(bob)
    with pytest.raises(CapReached, match="MAX_SANDBOX_INSTANCES"):
        touch(alice, old.name)
    assert live().count() == 1
    actions.release(bob, theirs.name)
    assert touch(alice, old.name)


def test_a_warm_one_makes_room_for_a_restoring(fake, alice, platform):
    old = recycled(alice)
    make_warm()
    platform.MAX_SANDBOX_INSTANCES = 1
    place = touch(alice, old.name)
    let_work_behind_end()
    assert live().get().name == place.name


def test_the_release_of_an_old_id_releases_the_one_in_its_place(fake, alice):
    old = recycled(alice)
    place = touch(alice, old.name)
    actions.release(alice, old.name)
    let_work_behind_end()
    row = row_of(place)
    assert (row.state, row.stop_reason) == (State.STOPPED, StopReason.RELEASED)
    assert not Path(row.workspace).exists()
    with pytest.raises(Ended):
        touch(alice, old.name)


def test_the_release_of_a_recycled_one_deletes_its_files(fake, alice):
    old = recycled(alice)
    Path(old.workspace, "file").write_text("secret")
    actions.release(alice, old.name)
    let_work_behind_end()
    assert not Path(old.workspace).exists()
    old.refresh_from_db()
    assert (old.stop_reason, old.environment) == (StopReason.RELEASED, {})
    assert record(actions.find(alice, old.name))["state"] == "released"
    with pytest.raises(Ended):
        touch(alice, old.name)
    assert fake.calls["start"] == 1


def test_the_release_of_the_first_id_of_a_chain_deletes_the_files_of_the_last(fake, alice):
    first = recycled(alice)
    touch(alice, first.name)
    recycle_all()
    actions.release(alice, first.name)
    let_work_behind_end()
    assert not Path(first.workspace).exists()
    assert not Sandbox.objects.restorable()


def test_cleanup_ends_what_is_recycled_too(fake, alice, bob):
    mine, theirs = recycled(alice, "mine"), recycled(bob, "theirs")
    running = actions.create(alice)
    assert actions.cleanup(alice) == 1
    let_work_behind_end()
    for row in (mine, theirs, running):
        row.refresh_from_db()
    assert (mine.stop_reason, theirs.stop_reason) == (StopReason.CLEANUP, StopReason.IDLE)
    assert not Path(mine.workspace).exists()
    assert Path(theirs.workspace).is_dir()
    assert running.state == State.STOPPED


def test_a_superusers_cleanup_leaves_the_sandboxes_of_others_and_the_pools(fake, bob):
    root = make_caller("root", is_superuser=True)
    kept = [recycled(bob, "theirs"), actions.create(bob)]
    own = actions.create(root)
    kept += make_warm()
    assert actions.cleanup(root) == 1
    let_work_behind_end()
    states = [Sandbox.objects.get(pk=one.pk).state for one in (own, *kept)]
    assert states == [State.STOPPED, State.STOPPED, State.RUNNING, State.WARM]
    assert Sandbox.objects.restorable().get() == kept[0]


def test_the_session_keeps_its_key_and_its_events(fake, alice):
    old = recycled(alice)
    touch(alice, old.name)
    assert Session.objects.get().key == "s"
    ended = Event.objects.get(sandbox=old, new_state=State.STOPPING)
    assert (ended.actor, ended.reason) == ("reaper", StopReason.IDLE)

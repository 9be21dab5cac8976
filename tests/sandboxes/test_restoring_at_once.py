"""Several touches of one recycled sandbox, and what else happens while it is restored."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from asgiref.sync import async_to_sync
from django.utils import timezone

from sandboxes import actions, deployment, directory, lifecycle, reaper
from sandboxes.actions import releasing
from sandboxes.models import Event, Sandbox
from sandboxes.refusals import Ended
from sandboxes.states import State, StopReason
from tests.factories import let_work_behind_end, make_caller
from tests.processes import OtherProcess, at_once
from tests.sandboxes.sessions import let_time_pass, recycled, touch
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def live():
    return Sandbox.objects.exclude(state=State.STOPPED)


async def touch_at_once(caller, name, count):
    places = await asyncio.gather(*(directory.find(caller, name) for _ in range(count)))
    return [place.name for place in places]


def touch_from_another_process(name, count):
    return async_to_sync(touch_at_once)(make_caller("alice"), name, count)


def test_six_touches_of_one_event_loop_make_one_new_sandbox(fake, alice):
    old = recycled(alice)
    directory.clear()
    names = async_to_sync(touch_at_once)(alice, old.name, 6)
    assert set(names) == {live().get().name}
    assert fake.calls["start"] == 2


def test_six_touches_of_six_threads_make_one_new_sandbox(fake, alice, in_thread):
    old = recycled(alice)
    fake.start_delay = 0.05
    with ThreadPoolExecutor(6) as threads:
        restore = in_thread(lambda _: actions.restore(old.name, actor="test"))
        names = {sandbox.name for sandbox in threads.map(restore, range(6))}
    assert names == {live().get().name}
    assert Sandbox.objects.count() == 2


def test_touches_of_two_processes_make_one_new_sandbox(fake, alice):
    old = recycled(alice)
    first, second = at_once(
        *(OtherProcess(touch_from_another_process, old.name, 3) for _ in range(2))
    )
    assert len(set(first + second)) == 1
    assert Sandbox.objects.count() == 2
    assert live().get().name == first[0]


def test_touches_under_a_full_cap_wait_for_the_one_that_is_coming(fake, alice, platform, in_thread):
    old = recycled(alice)
    platform.MAX_SANDBOX_INSTANCES = 1
    fake.start_delay = 0.05
    with ThreadPoolExecutor(6) as threads:
        restore = in_thread(lambda _: actions.restore(old.name, actor="test"))
        names = {sandbox.name for sandbox in threads.map(restore, range(6))}
    assert names == {live().get().name}


def test_a_touch_waits_until_the_old_one_is_removed(fake, alice, in_thread):
    sandbox = actions.create(alice, session_key="s")
    may_go = threading.Event()
    fake.fail_remove = lambda name: None if may_go.wait(30) else AssertionError
    let_time_pass()
    reaper.reap()
    assert Sandbox.objects.get().state == State.STOPPING
    with ThreadPoolExecutor(1) as threads:
        touching = threads.submit(in_thread(touch), alice, sandbox.name)
        wait_until(lambda: fake.calls["remove"] == 1)
        assert not touching.done()
        may_go.set()
        assert touching.result(30).state == State.RUNNING


@pytest.fixture
def during_a_restoring(fake, alice, in_thread, monkeypatch):
    """Return a call that does something in the middle of a restoring, and returns its outcome."""
    started, go_on, start = threading.Event(), threading.Event(), fake.start

    def start_and_wait(spec):
        seen = start(spec)
        started.set()
        assert go_on.wait(30)
        return seen

    def run(old, do):
        monkeypatch.setattr(fake, "start", start_and_wait)
        with ThreadPoolExecutor(1) as threads:
            touching = threads.submit(in_thread(touch), alice, old.name)
            assert started.wait(30)
            do()
            let_work_behind_end()
            go_on.set()
            return touching.exception(60) or touching.result()

    return run


@pytest.mark.parametrize("verb", ["release", "cleanup"])
def test_what_is_given_up_while_it_is_restored_does_not_come_back(
    fake, alice, during_a_restoring, verb
):
    old = recycled(alice)
    arguments = (old.name,) if verb == "release" else ()
    give_up = getattr(actions, verb)
    outcome = during_a_restoring(old, lambda: give_up(alice, *arguments))
    let_work_behind_end()
    assert not live()
    assert not list(fake.inspect_all())
    assert not Path(old.workspace).exists()
    assert isinstance(outcome, Ended | lifecycle.StartFailed)
    with pytest.raises(Ended):
        touch(alice, old.name)


def test_a_release_that_began_before_the_end_of_a_restoring_ends_it(fake, alice, monkeypatch):
    old = recycled(alice)
    forget_files = releasing.forget_files

    def restored_meanwhile(sandbox, **options):
        if sandbox.pk == old.pk:
            touch(alice, old.name)
        return forget_files(sandbox, **options)

    monkeypatch.setattr(releasing, "forget_files", restored_meanwhile)
    actions.release(alice, old.name)
    let_work_behind_end()
    assert not live()
    assert not Path(old.workspace).exists()


def test_a_session_is_not_recycled_while_it_is_restored(fake, alice, during_a_restoring):
    old = recycled(alice)
    place = during_a_restoring(old, reaper.reap)
    assert place.state == State.RUNNING
    assert not reaper.reap()


def test_a_restoring_may_take_longer_than_the_lock_of_a_session(
    fake, alice, platform, during_a_restoring
):
    platform.HEARTBEAT_LOCK_TTL = 0
    place = during_a_restoring(recycled(alice), reaper.reap)
    assert place.state == State.RUNNING


def test_the_lock_of_a_session_holds_as_long_as_it_is_set(fake, alice, platform):
    platform.HEARTBEAT_LOCK_TTL = 10_000
    until = []
    fake.fail_start = lambda name: until.append(Sandbox.objects.get(name=name).worker_until)
    old = recycled(alice)
    touch(alice, old.name)
    assert until[-1] > timezone.now() + timedelta(seconds=9_000)


def test_a_worker_that_dies_while_it_restores_costs_no_files(fake, alice):
    old = recycled(alice)
    Path(old.workspace, "file").write_text("precious")
    with OtherProcess(restore_with_a_guest_that_never_answers, old.name) as killed:
        killed.begin()
        wait_until(lambda: live().filter(state=State.STARTING).exists())
        heir = live().get()
        killed.kill()
    assert reaper.reap().abandoned == [heir.name]
    place = touch(alice, old.name)
    assert place.name not in (old.name, heir.name)
    assert Path(old.workspace, "file").read_text() == "precious"
    assert Event.objects.filter(sandbox=heir, reason=StopReason.FAILED).exists()


def restore_with_a_guest_that_never_answers(name):
    deployment.current().guest_delay = 3600
    return actions.restore(name, actor="test").name

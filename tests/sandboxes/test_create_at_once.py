"""Many creates at once: the cap and the queue."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from sandboxes import actions, lifecycle
from sandboxes.models import Sandbox
from sandboxes.refusals import CapReached, Ended
from sandboxes.states import State
from tests.endings import nothing_is_left
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_cap_is_never_exceeded_by_parallel_creates(fake, alice, platform, in_thread):
    platform.MAX_SANDBOX_INSTANCES = 3

    def create(_):
        try:
            return actions.create(alice)
        except CapReached:
            return None

    with ThreadPoolExecutor(12) as pool:
        made = [sandbox for sandbox in pool.map(in_thread(create), range(12)) if sandbox]
    assert len(made) == 3
    assert Sandbox.objects.count() == 3
    actions.release(alice, made[0].name)
    assert actions.create(alice)


def test_a_burst_queues_instead_of_starting_all_at_once(
    fake, alice, platform, in_thread, monkeypatch
):
    monkeypatch.setattr(lifecycle, "_slots", threading.BoundedSemaphore(2))
    running, most, lock = 0, 0, threading.Lock()
    start = fake.start

    def counted(spec):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        try:
            return start(spec)
        finally:
            with lock:
                running -= 1

    monkeypatch.setattr(fake, "start", counted)
    fake.start_delay = 0.05
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(in_thread(lambda _: actions.create(alice)), range(8)))
    assert most == 2
    assert Sandbox.objects.filter(state=State.RUNNING).count() == 8


def test_a_create_that_waited_too_long_in_the_queue_is_told(fake, alice, platform, monkeypatch):
    monkeypatch.setattr(lifecycle, "_slots", threading.BoundedSemaphore(1))
    lifecycle._slots.acquire()
    platform.CREATE_TIMEOUT = 0.1
    with pytest.raises(lifecycle.StartFailed, match="waited in the queue"):
        actions.create(alice)
    assert nothing_is_left(fake)


def test_one_that_is_ended_while_it_waits_in_the_queue_is_told_so(
    fake, alice, in_thread, monkeypatch
):
    monkeypatch.setattr(lifecycle, "_slots", threading.BoundedSemaphore(1))
    lifecycle._slots.acquire()
    with ThreadPoolExecutor(1) as pool:
        creating = pool.submit(in_thread(actions.create), alice)
        wait_until(Sandbox.objects.filter(state=State.PENDING).exists)
        actions.cleanup(alice)
        lifecycle._slots.release()
        with pytest.raises(Ended, match="ended by another request"):
            creating.result(30)
    assert nothing_is_left(fake)


def test_released_sandboxes_that_still_are_removed_make_room_under_the_cap(fake, alice, platform):
    platform.MAX_SANDBOX_INSTANCES, fake.remove_delay = 1, 0.3
    first = actions.create(alice)
    actions.release(alice, first.name)
    assert Sandbox.objects.get().state == State.STOPPING
    assert actions.create(alice)

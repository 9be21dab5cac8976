from __future__ import annotations

import os
import signal

import pytest

from sandboxes import wakeup
from sandboxes.models import Installation
from tests.processes import OtherProcess

pytestmark = pytest.mark.django_db(transaction=True)

LONG = 30


def ring():
    wakeup.ring("test")
    return "rung"


@pytest.fixture
def listener(fake):
    with wakeup.Listener("test") as listener:
        yield listener


def test_a_ring_is_heard_and_many_are_one(listener):
    for _ in range(100):
        ring()
    assert listener.wait(LONG)
    assert not listener.wait(0)


def test_a_ring_before_the_wait_is_not_lost(listener):
    ring()
    assert listener.wait(0)


def test_nobody_has_to_listen(fake):
    ring()


def test_the_wait_ends_when_its_time_is_over(listener):
    assert not listener.wait(0.01)


def test_a_ring_of_another_process_is_heard(listener):
    with OtherProcess(ring) as other:
        other.begin()
        assert listener.wait(LONG)
        assert other.result() == "rung"


def test_another_name_is_not_heard(listener):
    wakeup.ring("another")
    assert not listener.wait(0)


def test_another_installation_is_not_heard(listener):
    Installation.objects.all().delete()
    wakeup.forget()
    ring()
    assert not listener.wait(0)


def test_a_signal_ends_the_wait(listener):
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert listener.wait(LONG)
        assert not listener.wait(0)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_second_listener_hears_signals_and_leaves_the_bell_to_the_first(listener):
    with wakeup.Listener("test") as second:
        ring()
        assert not second.wait(0)
    assert listener.wait(0)


def test_the_name_is_free_after_the_end(listener):
    listener.close()
    with wakeup.Listener("test") as second:
        ring()
        assert second.wait(0)

from __future__ import annotations

import threading

import pytest

from deployers.errors import Unavailable
from sandboxes import actions, watching
from sandboxes.models import Event, Sandbox
from sandboxes.states import State, StopReason
from tests.factories import let_work_behind_end, make_sandbox, make_warm

pytestmark = pytest.mark.django_db(transaction=True)


def news(fake, *rounds):
    """Let the fake deployer tell these names, or raise what is no list, one round after another."""
    left = list(rounds)

    def watch(stopping):
        if not left:
            stopping.set()
            return
        told = left.pop(0)
        if isinstance(told, Exception):
            raise told
        yield from told

    fake.supports_watch, fake.watch = True, watch


@pytest.fixture
def watch(fake, monkeypatch):
    """Return a call that watches until the news are told, and returns how many were losses."""
    monkeypatch.setattr(watching, "PAUSE_SECONDS", 0)

    def run():
        losses = []
        watching.watch(threading.Event(), lambda: losses.append(1))
        return len(losses)

    return run


def test_a_warm_one_and_a_lent_one_that_ended_are_lost_at_once(fake, alice, watch):
    lent, warm = actions.create(alice), make_warm()[0]
    fake.kill(lent.name)
    fake.vanish(warm.name)
    news(fake, [lent.name, warm.name])
    assert watch() == 2
    let_work_behind_end()
    rows = Sandbox.objects.values_list("state", "stop_reason")
    assert set(rows) == {(State.STOPPED, StopReason.LOST)}
    lost = Event.objects.filter(new_state=State.STOPPING)
    assert set(lost.values_list("actor", flat=True)) == {"watcher"}


def test_news_of_one_that_lives_ends_nothing(fake, alice, watch):
    sandbox = actions.create(alice)
    news(fake, [sandbox.name])
    assert watch() == 0
    assert Sandbox.objects.get().state == State.RUNNING


def test_news_of_one_that_was_stopped_by_its_caller_ends_nothing(fake, alice, watch):
    sandbox = actions.create(alice)
    actions.halt(alice, sandbox.name)
    news(fake, [sandbox.name])
    assert watch() == 0
    assert Sandbox.objects.get().state == State.HALTED


def test_news_of_strangers_and_of_what_was_released_end_nothing(fake, alice, watch):
    released = actions.create(alice)
    actions.release(alice, released.name)
    let_work_behind_end()
    starting = make_sandbox(State.STARTING)
    news(fake, ["a-stranger", released.name, starting.name])
    assert watch() == 0
    assert Sandbox.objects.get(pk=released.pk).stop_reason == StopReason.RELEASED
    assert Sandbox.objects.get(pk=starting.pk).state == State.STARTING


@pytest.mark.parametrize("error", [Unavailable("the engine is away"), RuntimeError("a bug")])
def test_an_engine_that_breaks_off_is_listened_to_again(fake, alice, watch, error):
    sandbox = actions.create(alice)
    fake.kill(sandbox.name)
    news(fake, error, [sandbox.name])
    assert watch() == 1


def test_a_deployer_without_news_is_not_listened_to(fake, watch):
    fake.supports_watch = False
    assert watch() == 0

"""Several sandboxes for one caller: all or none."""

from __future__ import annotations

import threading
import time

import pytest

from deployers.errors import Rejected
from deployers.fake.protocol import Handler
from sandboxes import actions, binding, lifecycle
from sandboxes.actions import claiming
from sandboxes.actions.wishes import Wish
from sandboxes.binding import File
from sandboxes.models import Event, Sandbox
from sandboxes.refusals import CapReached, Refused
from sandboxes.states import State, StopReason
from tests.endings import nothing_is_left
from tests.factories import let_work_behind_end, make_warm

pytestmark = pytest.mark.django_db(transaction=True)


def test_warm_ones_are_lent_together_in_one_transaction(fake, alice):
    warm = make_warm(3)
    lent = actions.create_many(alice, 3, session_key="s")
    assert [sandbox.pk for sandbox in lent] == [sandbox.pk for sandbox in warm]
    rows = Sandbox.objects.all()
    assert len(set(rows.values_list("claimed_at", flat=True))) == 1
    assert set(rows.values_list("state", "session__key")) == {(State.RUNNING, "s")}


def test_those_that_no_warm_one_is_there_for_are_made(fake, alice):
    warm = make_warm(2)
    lent = actions.create_many(alice, 5)
    assert len({sandbox.pk for sandbox in lent}) == 5
    kinds = [sandbox.timeline["kind"] for sandbox in lent]
    assert (kinds.count("warm"), kinds.count("cold")) == (len(warm), 3)
    assert Sandbox.objects.filter(state=State.RUNNING).count() == 5


def test_a_new_one_that_fails_gives_the_warm_ones_back(fake, alice):
    warm = make_warm(2)
    fake.fail_start = Rejected("there is no such image")
    with pytest.raises(lifecycle.StartFailed, match="no such image"):
        actions.create_many(alice, 3)
    assert nothing_is_left(fake)
    given_back = Sandbox.objects.filter(pk__in=[sandbox.pk for sandbox in warm])
    assert set(given_back.values_list("stop_reason", flat=True)) == {StopReason.RELEASED}


def test_one_new_one_that_fails_of_several_takes_the_others_along(fake, alice):
    started = []

    def fail_the_third(name):
        started.append(name)
        return Rejected("no more") if len(started) == 3 else None

    fake.fail_start = fail_the_third
    with pytest.raises(lifecycle.StartFailed, match="no more"):
        actions.create_many(alice, 4)
    assert nothing_is_left(fake)


def test_a_cap_that_is_too_low_for_all_lends_none(fake, alice, platform):
    make_warm(2)
    platform.MAX_SANDBOX_INSTANCES = 3
    with pytest.raises(CapReached):
        actions.create_many(alice, 5)
    assert set(Sandbox.objects.values_list("state", flat=True)) == {State.WARM}


def refuse_files_in(monkeypatch, sandbox):
    """Let the guest of one sandbox refuse every file."""
    put = Handler.put_workspace_file

    def refuse(handler):
        if str(handler.server.files.workspace) == sandbox.workspace:
            b"".join(handler.body())
            return handler.reply(507, {"detail": "The disk is full."})
        return put(handler)

    monkeypatch.setattr(Handler, "put_workspace_file", refuse)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_guest_that_refuses_the_files_leaves_nothing_lent(fake, alice, monkeypatch, which):
    warm = make_warm(3, can_bind=False)
    refuse_files_in(monkeypatch, warm[which])
    with pytest.raises(Refused, match="The disk is full") as caught:
        actions.create_many(alice, 3, files=(File("f", b"x"),))
    assert caught.value.field == "files"
    assert nothing_is_left(fake)


def test_a_dead_one_of_several_is_made_up_for(fake, alice):
    dead, *healthy = make_warm(4)
    fake.kill(dead.name)
    lent = actions.create_many(alice, 3)
    assert {sandbox.pk for sandbox in lent} == {sandbox.pk for sandbox in healthy}
    let_work_behind_end()
    assert Event.objects.filter(sandbox=dead, new_state=State.STOPPED).exists()


def test_guests_that_do_not_answer_are_not_waited_for_one_after_the_other(fake, alice, monkeypatch):
    """All that are claimed together are bound together: the slowest says how long it takes."""
    make_warm(4)
    together = threading.Barrier(4, timeout=20)
    answer = Handler.do_POST

    def answer_when_all_are_asked(handler):
        together.wait()
        return answer(handler)

    monkeypatch.setattr(Handler, "do_POST", answer_when_all_are_asked)
    lent = actions.create_many(alice, 4, environment={"A": "b"})
    assert [sandbox.timeline["kind"] for sandbox in lent] == ["warm"] * 4


def test_a_deadline_ends_the_search_for_one_that_is_alive(fake, alice, platform, monkeypatch):
    """A pool of guests that hang costs a caller no more than CREATE_TIMEOUT, and not the pool."""
    warm = make_warm(3)
    now = time.monotonic()

    def hang(*args, seconds, **kwargs):
        monkeypatch.setattr(claiming.time, "monotonic", lambda: now + 1000)
        raise binding.GuestGone("timed out")

    monkeypatch.setattr(binding, "bind", hang)
    caught = claiming.claim(
        alice, warm[0].sandbox_type, Wish(environment={"A": "b"}), 1, deadline=now + 10
    )
    monkeypatch.undo()
    assert caught == []
    assert Sandbox.objects.filter(state=State.WARM).count() == 2

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import InterfaceError, OperationalError, connection, connections
from django.utils import timezone

from sandboxes import actions, bookkeeping, ending, lifecycle, reaper, steps, workers
from sandboxes.models import Sandbox
from sandboxes.states import State, StopReason
from tests.factories import let_work_behind_end, make_sandbox, make_user, make_warm
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def without_database(monkeypatch):
    """Return a context in which this thread's database fails at each change, as if it had died."""
    monkeypatch.setattr(bookkeeping, "RETRY_SECONDS", 0.01)

    def failing(error):
        def fail(execute, sql, params, many, context):
            if sql.startswith(("UPDATE", "INSERT")):
                raise error("the connection is lost")
            return execute(sql, params, many, context)

        return connection.execute_wrapper(fail)

    return failing


def wait_until_given_up(sandbox):
    wait_until(lambda: Sandbox.objects.get(pk=sandbox.pk).worker == "")


@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
def test_a_removal_that_could_not_be_recorded_is_left_to_the_reaper(fake, error, without_database):
    sandbox = make_warm()[0]
    sandbox.move_to(State.STOPPING, actor="test", stop_reason=StopReason.RELEASED)
    assert sandbox.worker == workers.current()
    with without_database(error), pytest.raises(error):
        ending.finish_stop(sandbox, actor="test")
    wait_until_given_up(sandbox)
    assert reaper.reap().abandoned == [sandbox.name]
    let_work_behind_end()
    assert Sandbox.objects.get().state == State.STOPPED


def test_a_start_that_could_not_be_recorded_is_left_to_the_reaper(fake, without_database):
    sandbox = make_sandbox(State.PENDING, owner=make_user("carol"), worker=workers.current())
    with without_database(OperationalError), pytest.raises(OperationalError):
        lifecycle.start(sandbox, actor="test", deadline=float("inf"))
    wait_until_given_up(sandbox)
    assert reaper.reap().abandoned == [sandbox.name]
    let_work_behind_end()
    assert not list(fake.inspect_all())


def test_it_is_tried_until_the_database_answers(fake, monkeypatch):
    monkeypatch.setattr(bookkeeping, "RETRY_SECONDS", 0.01)
    sandbox = make_sandbox(State.STOPPING, worker=workers.current())
    give_up, failures = steps.give_up, []

    def fail_at_first(names, failed_at):
        if len(failures) < 3:
            failures.append(names)
            raise OperationalError("not yet")
        return give_up(names, failed_at)

    monkeypatch.setattr(steps, "give_up", fail_at_first)
    with pytest.raises(OperationalError), steps.at([sandbox]):
        raise OperationalError("the connection is lost")
    wait_until_given_up(sandbox)
    assert len(failures) == 3


@pytest.mark.parametrize(
    ("worker", "begun"), [("another:1:1", timedelta()), (None, timedelta(seconds=1))]
)
def test_the_step_of_another_process_or_a_later_one_is_kept(fake, worker, begun):
    now = timezone.now()
    worker = worker or workers.current()
    sandbox = make_sandbox(State.STOPPING, worker=worker, updated_at=now + begun)
    steps.give_up([sandbox.name], now)
    sandbox.refresh_from_db()
    assert sandbox.worker == worker


def test_what_was_lent_by_a_commit_without_an_answer_is_ended(fake, alice, monkeypatch):
    """The connection is lost while the commit is on its way: it came about, and nobody knows."""
    warm = make_warm()[0]
    wrapper = connections["default"]
    commit = wrapper.commit

    def commit_and_fail():
        commit()
        if Sandbox.objects.filter(state=State.RUNNING).exists():
            raise OperationalError("the connection is lost")

    with monkeypatch.context() as patched:
        patched.setattr(wrapper, "commit", commit_and_fail)
        with pytest.raises(OperationalError):
            actions.create(alice)
    bookkeeping.wait()
    row = Sandbox.objects.get()
    assert (row.pk, row.state, row.worker) == (warm.pk, State.RUNNING, workers.NOBODY)
    long_ago = timezone.now() - timedelta(minutes=2)
    Sandbox.objects.update(claimed_at=long_ago, last_used_at=long_ago)
    assert reaper.reap().unanswered == [warm.name]
    let_work_behind_end()
    assert not list(fake.inspect_all())


def test_another_error_gives_nothing_up(fake, alice):
    sandbox = make_sandbox(State.STOPPING, worker=workers.current())
    with pytest.raises(ValueError, match="no database"), steps.at([sandbox]):
        raise ValueError("no database's fault")
    bookkeeping.wait()
    sandbox.refresh_from_db()
    assert sandbox.worker == workers.current()

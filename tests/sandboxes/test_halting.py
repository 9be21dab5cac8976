"""Stopping and starting again: whatever happens meanwhile, the files stay."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from deployers.errors import Unavailable
from sandboxes import actions, lifecycle, reaper
from sandboxes.actions import halting
from sandboxes.models import Sandbox
from sandboxes.refusals import NotRunning
from sandboxes.states import State
from tests.factories import let_work_behind_end

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def recycled(fake, alice):
    sandbox = actions.create(alice, session_key="s")
    assert actions.recycle(sandbox, actor="test")
    let_work_behind_end()
    sandbox.refresh_from_db()
    return alice, sandbox


def test_a_start_restores_what_was_recycled(recycled):
    alice, sandbox = recycled
    actions.resume(alice, sandbox.name)
    sandbox.refresh_from_db()
    assert sandbox.replaced_by.state == State.RUNNING
    assert sandbox.replaced_by.session_id == sandbox.session_id


def test_a_stop_leaves_what_was_recycled_as_it_is(recycled):
    alice, sandbox = recycled
    actions.halt(alice, sandbox.name)
    sandbox.refresh_from_db()
    assert (sandbox.state, sandbox.can_be_restored) == (State.STOPPED, True)


def test_a_restart_that_fails_keeps_the_files_of_a_halted_sandbox(fake, alice):
    sandbox = actions.create(alice)
    Path(sandbox.workspace, "file").write_text("precious")
    actions.halt(alice, sandbox.name)
    fake.fail_start = Unavailable("the engine is away")
    with pytest.raises(lifecycle.StartFailed, match="the engine is away"):
        actions.resume(alice, sandbox.name)
    assert Sandbox.objects.get().state == State.HALTED
    fake.fail_start = None
    actions.resume(alice, sandbox.name)
    assert Path(sandbox.workspace, "file").read_text() == "precious"
    assert Sandbox.objects.get().state == State.RUNNING


def test_a_restart_that_waited_too_long_in_the_queue_keeps_the_halted_sandbox(
    fake, alice, platform, monkeypatch
):
    sandbox = actions.create(alice)
    actions.halt(alice, sandbox.name)
    monkeypatch.setattr(lifecycle, "_slots", threading.BoundedSemaphore(1))
    lifecycle._slots.acquire()
    platform.CREATE_TIMEOUT = 0.1
    with pytest.raises(lifecycle.StartFailed, match="waited in the queue"):
        actions.resume(alice, sandbox.name)
    assert Sandbox.objects.get().state == State.HALTED
    assert Path(sandbox.workspace).is_dir()


def test_a_halt_that_is_not_certain_is_finished_by_the_reaper(fake, alice, monkeypatch):
    sandbox = actions.create(alice)

    def away(name):
        raise Unavailable("the engine is away")

    monkeypatch.setattr(fake, "stop", away)
    with pytest.raises(Unavailable):
        actions.halt(alice, sandbox.name)
    assert Sandbox.objects.get().state == State.HALTING
    monkeypatch.undo()
    Sandbox.objects.update(worker_until=timezone.now() - timedelta(seconds=1))
    reaper.reap()
    let_work_behind_end()
    assert Sandbox.objects.get().state == State.HALTED
    actions.resume(alice, sandbox.name)
    assert Sandbox.objects.get().state == State.RUNNING


def test_a_worker_that_dies_while_it_resumes_costs_no_files(fake, alice):
    sandbox = actions.create(alice)
    Path(sandbox.workspace, "file").write_text("precious")
    actions.halt(alice, sandbox.name)
    Sandbox.objects.get().move_to(State.RESUMING, actor="user:alice")
    Sandbox.objects.update(worker_until=timezone.now() - timedelta(seconds=1))
    reaper.reap()
    let_work_behind_end()
    assert Sandbox.objects.get().state == State.HALTED
    assert Path(sandbox.workspace, "file").read_text() == "precious"


def test_a_call_that_breaks_while_its_sandbox_is_halted_costs_no_files(fake, alice):
    sandbox = actions.create(alice)
    actions.halt(alice, sandbox.name)
    refusal = actions.explain_silence(sandbox.name, actor="server")
    assert isinstance(refusal, NotRunning)
    assert Sandbox.objects.get().state == State.HALTED
    assert Path(sandbox.workspace).is_dir()


def test_two_requests_on_one_sandbox_are_told_from_each_other(fake, alice, monkeypatch):
    sandbox = actions.create(alice)
    find_serving = actions.find_serving

    def moved_meanwhile(caller, identity):
        found = find_serving(caller, identity)
        Sandbox.objects.get().move_to(State.HALTING, actor="another", url="")
        return found

    monkeypatch.setattr(halting, "find_serving", moved_meanwhile)
    with pytest.raises(NotRunning, match="Another request"):
        actions.halt(alice, sandbox.name)

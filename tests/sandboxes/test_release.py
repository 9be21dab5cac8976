"""Releasing a sandbox: its caller's own only, and until nothing is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployers.errors import Unavailable
from sandboxes import actions
from sandboxes.models import Sandbox
from sandboxes.refusals import Unknown
from sandboxes.states import State
from tests.endings import nothing_is_left, release
from tests.factories import let_work_behind_end

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_removal_that_fails_leaves_it_stopping_for_the_reaper(fake, alice):
    sandbox = actions.create(alice)
    fake.fail_remove = Unavailable("the engine is away")
    release(alice, sandbox)
    row = Sandbox.objects.get()
    assert (row.state, row.detail) == (State.STOPPING, "the engine is away")
    assert row.worker_until is not None


def test_callers_see_and_end_their_own_only(fake, alice, bob):
    mine, theirs = actions.create(alice, session_key="s"), actions.create(bob, session_key="s")
    with pytest.raises(Unknown):
        actions.find(alice, theirs.name)
    actions.release(alice, theirs.name)
    assert actions.status(bob, theirs.name) == "running"
    assert actions.cleanup(alice) == 1
    assert actions.status(alice, mine.name) is None
    assert actions.status(bob, theirs.name) == "running"


def test_a_release_answers_before_the_removal_has_ended(fake, alice):
    sandbox = actions.create(alice)
    fake.remove_delay = 0.5
    actions.release(alice, sandbox.name)
    assert Sandbox.objects.get().state == State.STOPPING
    assert actions.status(alice, sandbox.name) is None
    let_work_behind_end()
    assert Sandbox.objects.get().state == State.STOPPED


def test_a_sandbox_is_removed_by_the_deployer_that_made_it(fake, alice, platform):
    sandbox = actions.create(alice)
    platform.CONTAINER_DEPLOYMENT = "docker"
    release(alice, sandbox)
    assert nothing_is_left(fake)


def test_a_workspace_that_its_sandbox_closed_is_deleted_all_the_same(fake, alice):
    sandbox = actions.create(alice)
    closed = Path(sandbox.workspace, "a", "b")
    closed.mkdir(parents=True)
    (closed / "file").write_text("x")
    closed.chmod(0)
    closed.parent.chmod(0)
    release(alice, sandbox)
    assert nothing_is_left(fake)

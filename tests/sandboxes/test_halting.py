"""Stopping and starting what was recycled meanwhile: its caller need not notice."""

from __future__ import annotations

import pytest

from sandboxes import actions
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

from __future__ import annotations

import pytest

from sandboxes.models import Event, Sandbox
from sandboxes.states import LIVE, TRANSITIONS, State, StateConflict, StopReason
from tests.factories import make_sandbox

pytestmark = pytest.mark.django_db


def test_a_move_writes_the_fields_and_an_event():
    sandbox = make_sandbox()
    sandbox.move_to(
        State.STOPPING, actor="user:alice", stop_reason=StopReason.RELEASED, detail="done"
    )
    row = Sandbox.objects.get()
    assert (row.state, row.stop_reason, row.detail) == ("stopping", "released", "done")
    assert row.worker_until is not None
    event = Event.objects.get()
    assert (event.old_state, event.new_state, event.reason, event.actor, event.detail) == (
        "running",
        "stopping",
        "released",
        "user:alice",
        "done",
    )


def test_a_sandbox_that_somebody_else_moved_is_a_conflict():
    sandbox, stale = make_sandbox(), Sandbox.objects.get()
    sandbox.move_to(State.STOPPING, actor="a", stop_reason=StopReason.RELEASED)
    with pytest.raises(StateConflict):
        stale.move_to(State.HALTING, actor="b", url="")
    assert Sandbox.objects.get().state == State.STOPPING
    assert Event.objects.count() == 1


def test_a_way_that_the_machine_does_not_know_is_refused():
    with pytest.raises(ValueError, match="stopped sandbox cannot become running"):
        make_sandbox(State.STOPPED).move_to(State.RUNNING, actor="a")


def test_every_state_leads_to_stopped():
    assert set(TRANSITIONS) == set(State)
    for state in LIVE:
        assert State.STOPPING in TRANSITIONS[state]
    assert TRANSITIONS[State.STOPPING] == {State.STOPPED}


def test_names_are_distinct_and_fit_a_dns_label():
    names = {make_sandbox().name for _ in range(20)}
    assert len(names) == 20
    assert all(len(name) <= 63 and name.islower() and "_" not in name for name in names)


def test_the_guest_secret_and_the_desktop_credential_differ_and_are_stable():
    sandbox = make_sandbox()
    again = Sandbox.objects.get()
    assert sandbox.guest_secret == again.guest_secret != sandbox.desktop_credential
    assert make_sandbox().guest_secret != sandbox.guest_secret

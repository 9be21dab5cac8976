from __future__ import annotations

import dataclasses

import pytest

from sandboxes import actions, timeline
from sandboxes.models import Sandbox
from tests.factories import let_work_behind_end


def test_phases_are_noted_in_their_order_in_milliseconds():
    row = {}
    timeline.note(row, "started", 0.1234567)
    timeline.note(row, "guest ready", 2)
    timeline.say_cold(row, "no warm one was ready")
    assert row == {
        "kind": "cold",
        "because": "no warm one was ready",
        "phases": [["started", 123.5], ["guest ready", 2000]],
    }


def test_a_stopwatch_measures_each_phase_from_the_one_before(monkeypatch):
    times = iter([10.0, 10.5, 12.5])
    monkeypatch.setattr(timeline.time, "monotonic", lambda: next(times))
    row = {}
    watch = timeline.Stopwatch(row)
    watch.note("one")
    watch.note("two")
    assert row["phases"] == [["one", 500.0], ["two", 2000.0]]


def test_percentiles_are_told_of_each_phase():
    rows = [{"phases": [["started", float(ms)]]} for ms in range(1, 101)]
    rows += [{}, {"kind": "warm"}, {"phases": [["claimed", 7.0]]}]
    found = timeline.percentiles(rows)
    assert found["started"] == {"count": 100, "p50": 51.0, "p95": 96.0}
    assert found["claimed"] == {"count": 1, "p50": 7.0, "p95": 7.0}


def test_there_are_no_percentiles_of_nothing():
    assert timeline.percentiles([]) == {}


@pytest.mark.django_db(transaction=True)
def test_a_cold_one_tells_how_it_came_up_and_why_it_was_cold(fake, alice):
    actions.create(alice)
    found = Sandbox.objects.get().timeline
    assert (found["kind"], found["because"]) == ("cold", "no warm one was ready")
    assert [name for name, _ in found["phases"]] == ["queued", "started", "guest ready"]
    assert all(milliseconds >= 0 for _, milliseconds in found["phases"])


@pytest.mark.django_db(transaction=True)
def test_a_timeline_does_not_grow_when_it_is_stopped_and_started(fake, alice):
    sandbox = actions.create(alice)
    let_work_behind_end()
    before = Sandbox.objects.get().timeline
    for _ in range(2):
        actions.halt(alice, sandbox.name)
        actions.resume(alice, sandbox.name)
    assert Sandbox.objects.get().timeline == before


@pytest.mark.django_db(transaction=True)
def test_what_a_deployer_did_one_after_the_other_is_told_apart(fake, alice, monkeypatch):
    start = fake.start

    def start_in_parts(spec):
        laps = (("network", 0.001), ("created", 0.002), ("started", 0.003))
        return dataclasses.replace(start(spec), laps=laps)

    monkeypatch.setattr(fake, "start", start_in_parts)
    phases = actions.create(alice).timeline["phases"]
    names = [name for name, _ in phases]
    assert names == ["queued", "network", "created", "started", "guest ready"]
    assert dict(phases)["created"] == 2.0

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import DatabaseError
from django.utils import timezone

from sandboxes import actions, directory, heartbeat, reaper
from sandboxes.models import Sandbox, Session
from tests.processes import OtherProcess, at_once
from tests.sandboxes.sessions import let_time_pass

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def noted(monkeypatch):
    """The marks that were written, one set for each time."""
    written, note = [], heartbeat._note

    def note_and_tell(marks):
        written.append(set(marks))
        return note(marks)

    monkeypatch.setattr(heartbeat, "_note", note_and_tell)
    return written


async def written_out():
    """Return when the heartbeats of this event loop are written."""
    writer = heartbeat._heartbeat()._writer
    if writer is not None:
        await writer


async def call(place):
    async with heartbeat.during(place):
        pass


def active_at():
    return Session.objects.get().last_active_at


def test_many_calls_are_one_note_of_their_session(fake, alice, noted):
    sandboxes = [actions.create(alice, session_key="s") for _ in range(2)]
    begun = time.monotonic()

    async def run():
        places = [await directory.find(alice, sandbox.name) for sandbox in sandboxes]
        await asyncio.gather(*(call(place) for place in places for _ in range(200)))
        await written_out()

    async_to_sync(run)()
    session = Session.objects.get()
    intervals = 1 + int((time.monotonic() - begun) / heartbeat.interval())
    assert 1 <= len(noted) <= intervals
    assert set.union(*noted) == {(Session, session.pk)}


def test_marks_that_come_together_are_written_together(fake, alice, django_assert_num_queries):
    marks = {(Session, session.pk) for session in sessions(alice, 3)}
    marks |= {(Sandbox, actions.create(alice).pk) for _ in range(2)}
    let_time_pass()
    with django_assert_num_queries(2):
        heartbeat._note(marks)


def sessions(caller, count):
    return [actions.create(caller, session_key=f"s{number}").session for number in range(count)]


def test_a_call_is_noted_of_its_session_or_of_the_sandbox_alone(fake, alice):
    in_session, alone = actions.create(alice, session_key="s"), actions.create(alice)
    let_time_pass()
    before = timezone.now()

    async def run():
        for sandbox in (in_session, alone):
            await call(await directory.find(alice, sandbox.name))
        await written_out()

    async_to_sync(run)()
    assert active_at() >= before
    assert Sandbox.objects.get(pk=alone.pk).last_used_at >= before


@pytest.mark.parametrize("just_lent", [False, True])
def test_a_long_call_is_not_idle(fake, alice, platform, just_lent):
    platform.HEARTBEAT_TIMEOUT = 1
    sandbox = actions.create(alice, session_key="s")
    if just_lent:
        # Then nothing has to be written when the call begins.
        heartbeat.note_lending(sandbox)

    async def noted_after(moment):
        async with asyncio.timeout(30):
            while await sync_to_async(active_at)() < moment:
                await asyncio.sleep(0.01)

    async def run():
        place = await directory.find(alice, sandbox.name)
        async with heartbeat.during(place):
            # The session is marked again and again, however long the call takes.
            for _ in range(3):
                await sync_to_async(let_time_pass)()
                await noted_after(timezone.now() - timedelta(hours=1))
                platform.HEARTBEAT_TIMEOUT = 300
                assert not (await sync_to_async(reaper.reap)()).idle
                platform.HEARTBEAT_TIMEOUT = 1
        await written_out()

    async_to_sync(run)()


def test_the_notes_of_a_call_end_with_it(fake, alice, platform):
    platform.HEARTBEAT_TIMEOUT = 1
    sandbox = actions.create(alice, session_key="s")

    async def run():
        await call(await directory.find(alice, sandbox.name))
        await written_out()
        assert not heartbeat._heartbeat()._busy

    async_to_sync(run)()
    let_time_pass()
    assert reaper.reap().idle == [sandbox.name]


def note_session(pk):
    """Note a call to a session; return when it was noted last."""
    heartbeat._note({(Session, pk)})
    return active_at().isoformat()


def test_of_several_processes_one_writes_in_an_interval(fake, alice):
    session = sessions(alice, 1)[0]
    let_time_pass()
    noted = at_once(*(OtherProcess(note_session, session.pk) for _ in range(3)))
    assert set(noted) == {active_at().isoformat()}
    assert active_at() > timezone.now() - timedelta(minutes=5)


@pytest.mark.parametrize("in_session", [True, False])
def test_what_another_process_has_noted_counts_from_there(fake, alice, in_session):
    sandbox = actions.create(alice, **({"session_key": "s"} if in_session else {}))
    mark = (Session, sandbox.session_id) if in_session else (Sandbox, sandbox.pk)
    let_time_pass(heartbeat.lag() / 2)
    before = seen_at(mark)

    async def run():
        await call(await directory.find(alice, sandbox.name))
        await written_out()

    async_to_sync(run)()
    assert seen_at(mark) == before
    # Else a call that comes soon might be noted an interval later than it may be.
    assert time.monotonic() - heartbeat._noted_at[mark] >= heartbeat.interval() / 2


def seen_at(mark):
    model, pk = mark
    return model.objects.values_list(
        "last_active_at" if model is Session else "last_used_at", flat=True
    ).get(pk=pk)


def test_calls_are_noted_when_a_database_that_was_away_is_back(fake, alice, monkeypatch, caplog):
    monkeypatch.setattr(heartbeat, "RETRY_SECONDS", 0.01)
    sandbox = actions.create(alice, session_key="s")
    let_time_pass()
    note, attempts = heartbeat._note, []

    def away_at_first(marks):
        attempts.append(marks)
        if len(attempts) < 4:
            raise DatabaseError("it is away")
        return note(marks)

    monkeypatch.setattr(heartbeat, "_note", away_at_first)

    async def run():
        await call(await directory.find(alice, sandbox.name))
        await written_out()

    async_to_sync(run)()
    assert len(attempts) == 4
    assert active_at() > timezone.now() - timedelta(minutes=5)
    assert sum("it is away" in each.getMessage() for each in caplog.records) == 1


@pytest.mark.parametrize(
    ("timeout", "seconds"), [(0, 5.0), (300, 5.0), (20, 5.0), (8, 2.0), (1, 0.25)]
)
def test_sessions_are_noted_more_often_where_timeouts_are_short(platform, timeout, seconds):
    platform.HEARTBEAT_TIMEOUT = timeout
    assert heartbeat.interval() == seconds
    assert heartbeat.lag() == timedelta(seconds=seconds)


def test_the_first_use_is_written_once_with_the_time_it_took(fake, alice):
    sandbox = actions.create(alice)

    async def run():
        place = await directory.find(alice, sandbox.name)
        for seconds in (0.25, 0.5):
            await heartbeat.note_use(place, seconds)

    async_to_sync(run)()
    row = Sandbox.objects.get()
    assert row.first_used_at is not None
    assert row.first_call_seconds == 0.25

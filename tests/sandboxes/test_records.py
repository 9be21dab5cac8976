"""How long the records and files of ended sandboxes are kept."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from sandboxes import actions, ending, reaper
from sandboxes.models import Sandbox, Session
from sandboxes.refusals import Ended, Unknown
from sandboxes.states import State, StopReason
from tests.factories import let_work_behind_end
from tests.sandboxes.sessions import let_time_pass, recycle_all, recycled, touch

pytestmark = pytest.mark.django_db(transaction=True)


def let_records_age(seconds, **which):
    rows = Sandbox.objects.filter(**which).exclude(stopped_at=None)
    rows.update(stopped_at=timezone.now() - timedelta(seconds=seconds))


def test_the_files_of_a_recycled_one_wait_until_their_time_is_over(fake, alice, platform):
    platform.RECYCLED_KEY_TTL, platform.RELEASED_KEY_TTL = 1000, 10_000
    old = recycled(alice)
    let_records_age(900)
    reaper.reap()
    assert Path(old.workspace).is_dir()
    let_records_age(1100)
    reaper.reap()
    assert not Path(old.workspace).exists()
    old.refresh_from_db()
    assert (old.state, old.stop_reason) == (State.STOPPED, StopReason.EXPIRED)
    with pytest.raises(Ended, match="expired"):
        touch(alice, old.name)


def test_files_are_kept_for_ever_with_a_ttl_of_0(fake, alice, platform):
    platform.RECYCLED_KEY_TTL = 0
    old = recycled(alice)
    let_records_age(10**9)
    reaper.reap()
    assert Path(old.workspace).is_dir()
    assert touch(alice, old.name)


def test_the_record_of_a_recycled_one_is_kept_as_long_as_it_can_be_restored(fake, alice, platform):
    platform.RELEASED_KEY_TTL = 60
    old = recycled(alice)
    let_records_age(3600)
    let_time_pass()
    assert not reaper.reap().forgotten
    assert Session.objects.get().key == "s"
    assert touch(alice, old.name)


def test_a_record_that_leads_to_a_live_one_is_kept(fake, alice, platform):
    platform.RELEASED_KEY_TTL = 60
    old = recycled(alice)
    place = touch(alice, old.name)
    let_records_age(3600)
    assert not reaper.reap().forgotten
    assert touch(alice, old.name).name == place.name


def test_a_record_that_leads_to_a_recycled_one_is_kept(fake, alice, platform):
    platform.RELEASED_KEY_TTL = 60
    first = recycled(alice)
    second = touch(alice, first.name)
    recycle_all()
    let_records_age(3600)
    assert not reaper.reap().forgotten
    third = touch(alice, first.name)
    assert touch(alice, second.name).name == third.name


def test_records_that_lead_to_an_ended_one_are_forgotten(fake, alice, platform):
    platform.RELEASED_KEY_TTL = 60
    first = recycled(alice)
    touch(alice, first.name)
    actions.release(alice, first.name)
    let_work_behind_end()
    let_records_age(3600)
    let_time_pass()
    reaper.reap()
    assert not Sandbox.objects.exists()
    assert not Session.objects.exists()
    with pytest.raises(Unknown):
        touch(alice, first.name)


def test_files_that_resisted_a_release_are_deleted_by_the_reaper(fake, alice, monkeypatch):
    old = recycled(alice)

    def busy(folder):
        raise OSError("the disk is busy")

    monkeypatch.setattr(ending, "delete_tree", busy)
    actions.release(alice, old.name)
    let_work_behind_end()
    assert reaper.reap().errors == [f"{old.name}: the disk is busy"]
    monkeypatch.undo()
    reaper.reap()
    assert not Path(old.workspace).exists()
    assert not reaper.reap()

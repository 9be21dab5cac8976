from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from sandboxes import actions
from sandboxes.binding import File
from sandboxes.models import Sandbox, SandboxType
from sandboxes.refusals import Refused
from sandboxes.states import State
from tests.factories import make_warm

pytestmark = pytest.mark.django_db(transaction=True)


def test_what_a_caller_wishes_is_on_the_row_of_the_warm_one(fake, alice):
    warm = make_warm()[0]
    before = timezone.now()
    actions.create(
        alice,
        session_key="s",
        meta={"session_ctx_id": "s", "a": 1},
        labels={"team": "red"},
        lifetime=timedelta(minutes=5),
        idle_limit=timedelta(minutes=1),
    )
    row = Sandbox.objects.get()
    assert (row.pk, row.owner_id, row.session.key) == (warm.pk, alice.user_id, "s")
    assert row.meta == {"session_ctx_id": "s", "a": 1}
    assert row.labels == {"team": "red"}
    assert row.idle_limit == timedelta(minutes=1)
    life = timedelta(minutes=5)
    assert before + life <= row.expires_at <= timezone.now() + life
    assert row.session.last_active_at >= before


def test_what_a_caller_leaves_open_is_as_the_type_has_it(fake, alice):
    make_warm()
    SandboxType.objects.update(lifetime_seconds=600, idle_seconds=60)
    before = timezone.now()
    row = actions.create(alice)
    assert row.idle_limit == timedelta(seconds=60)
    assert before + timedelta(seconds=600) <= row.expires_at
    assert (row.session, row.meta, row.labels, row.environment) == (None, {}, {}, {})


def test_a_longer_life_than_the_types_is_refused_before_anything_is_lent(fake, alice):
    warm = make_warm()[0]
    SandboxType.objects.update(lifetime_seconds=60)
    with pytest.raises(Refused, match="live at most 60 s") as caught:
        actions.create(alice, lifetime=timedelta(seconds=61))
    assert caught.value.field == "lifetime_seconds"
    warm.refresh_from_db()
    assert warm.state == State.WARM


def test_the_files_of_a_wish_are_in_the_warm_ones_workspace(fake, alice):
    warm = make_warm()[0]
    files = (File("a.txt", b"one"), File("d/b.bin", bytes(range(256))))
    lent = actions.create(alice, files=files)
    assert lent.pk == warm.pk
    assert Path(lent.workspace, "a.txt").read_bytes() == b"one"
    assert Path(lent.workspace, "d", "b.bin").read_bytes() == bytes(range(256))


def test_a_new_one_has_the_files_of_a_wish_before_it_is_lent(fake, alice):
    lent = actions.create(alice, files=(File("d/a.txt", b"one"),))
    assert Path(lent.workspace, "d", "a.txt").read_bytes() == b"one"
    assert [name for name, _ in lent.timeline["phases"]][-1] == "bound"


@pytest.mark.parametrize("path", ["", "../a", "d/../../a"])
def test_a_file_outside_the_workspace_is_refused_before_anything_is_lent(fake, alice, path):
    warm = make_warm()[0]
    with pytest.raises(Refused, match="not a path below the workspace") as caught:
        actions.create(alice, files=(File(path, b""),))
    assert caught.value.field == "files"
    warm.refresh_from_db()
    assert warm.state == State.WARM


def test_a_mount_dir_makes_it_cold_and_the_timeline_says_why(fake, alice, platform, tmp_path):
    warm = make_warm()[0]
    platform.ALLOW_MOUNT_DIR = True
    mine = tmp_path / "mine"
    mine.mkdir()
    if os.geteuid() == 0:
        os.chown(mine, 1000, 1000)
    lent = actions.create(alice, mount_dir=str(mine))
    assert lent.workspace == str(mine)
    timeline = Sandbox.objects.get(pk=lent.pk).timeline
    assert timeline["kind"] == "cold"
    assert timeline["because"] == "mount_dir cannot be bound to a sandbox that runs already"
    warm.refresh_from_db()
    assert warm.state == State.WARM


def test_an_environment_is_given_to_a_new_one_where_the_guest_of_the_warm_one_is_too_old(
    fake, alice
):
    warm = make_warm(can_bind=False)[0]
    lent = actions.create(alice, environment={"FRUIT": "fig"})
    assert lent.pk != warm.pk
    assert (lent.environment, lent.timeline["kind"]) == ({"FRUIT": "fig"}, "cold")
    assert "its image's guest is too old" in lent.timeline["because"]
    warm.refresh_from_db()
    assert warm.state == State.WARM

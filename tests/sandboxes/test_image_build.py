"""What a build's row tells, from its first line to its end; the engine is the fake one."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from deployers.errors import Unavailable
from deployers.fake import FakeDeployer
from deployers.specs import SandboxSpec
from sandboxes import build_check, builder, reaper
from sandboxes.models import ImageBuild
from sandboxes.models.image_build import (
    BUILD_TRANSITIONS,
    OPEN_BUILDS,
    BuildInProgress,
    BuildState,
)
from sandboxes.states import StateConflict
from tests.factories import make_build, make_type
from tests.waiting import eventually

pytestmark = pytest.mark.django_db(transaction=True)

TAG = "agentscope/runtime-sandbox-small:latest"


@pytest.fixture
def engine(monkeypatch, tmp_path, platform):
    """An engine in memory, and a type called small whose Dockerfile has two steps."""
    file = tmp_path / "images" / "small" / "Dockerfile"
    file.parent.mkdir(parents=True)
    file.write_text("FROM scratch\nCOPY . /\n")
    make_type("small")
    deployer = FakeDeployer(instance="build-small", images={})
    monkeypatch.setattr(builder, "CONTEXT", tmp_path)
    monkeypatch.setattr(builder, "SAVE_SECONDS", 0.02)
    monkeypatch.setattr(build_check, "deployer_for", lambda type_name: deployer)
    yield deployer
    assert list(deployer.inspect_all()) == []


def interrupt(*_):
    raise KeyboardInterrupt


def expire(build):
    ImageBuild.objects.filter(pk=build.pk).update(worker_until=timezone.now() - timedelta(1))


def test_a_build_that_succeeds_tells_who_made_what(engine, capsys):
    call_command("buildimage", "small")
    row = ImageBuild.objects.get()
    assert (row.state, row.tag, row.worker_until) == ("succeeded", TAG, None)
    assert row.digest == engine.find_image(TAG)
    assert row.size_bytes == engine.image_size(TAG)
    assert row.requested_by.startswith("shell:")
    assert row.created_at <= row.started_at <= row.finished_at
    assert "Step 2/2 : COPY . /" in row.log
    assert row.log in capsys.readouterr().out


def test_the_row_is_building_before_the_engine_is_asked(engine):
    with closing(builder.build("small")) as lines:
        next(lines)
        assert (ImageBuild.objects.get().state, engine.calls["build"]) == ("building", 0)


def test_the_log_grows_and_the_lease_is_renewed_while_it_builds(engine):
    with closing(builder.build("small")) as lines:
        next(lines)
        first = ImageBuild.objects.get().worker_until
        next(lines)
        assert eventually(lambda: "Step 1/2" in ImageBuild.objects.get().log)
        assert eventually(lambda: ImageBuild.objects.get().worker_until > first)


def test_a_step_that_fails_fails_the_build_and_the_row_says_why(engine):
    engine.fail_build = Unavailable("the disk is full\0")
    with pytest.raises(CommandError, match="disk is full"):
        call_command("buildimage", "small")
    row = ImageBuild.objects.get()
    assert (row.state, row.digest) == ("failed", "")
    assert row.detail == f"Building {TAG} failed: the disk is full"
    assert "Step 2/2" in row.log


def test_a_check_that_fails_removes_the_image_unless_it_has_a_tag(engine):
    engine.fail_start = Unavailable("no room")
    with pytest.raises(CommandError, match=f"{TAG} was not made: no room"):
        call_command("buildimage", "small")
    assert engine.images == {}
    engine.fail_start = None
    call_command("buildimage", "small")
    old = engine.find_image(TAG)
    engine.fail_start = Unavailable("no room")
    with pytest.raises(CommandError, match=f"{TAG} still names {old}"):
        call_command("buildimage", "small")
    assert engine.find_image(TAG) == old
    assert [row.state for row in ImageBuild.objects.all()] == ["failed", "succeeded", "failed"]


@pytest.mark.parametrize("stage", ["fail_build", "fail_start"])
def test_an_interrupt_cancels_the_build_and_leaves_nothing(engine, stage):
    setattr(engine, stage, interrupt)
    with pytest.raises(CommandError, match="Cancelled") as caught:
        call_command("buildimage", "small")
    assert caught.value.returncode == 130
    row = ImageBuild.objects.get()
    assert (row.state, row.detail) == ("cancelled", "Cancelled on the way.")
    assert engine.images == {}


def test_an_interrupt_after_the_tag_has_moved_is_too_late(engine):
    with closing(builder.build("small")) as lines:
        while not next(lines).startswith("Tagged"):
            pass
    assert ImageBuild.objects.get().state == BuildState.SUCCEEDED


def test_a_second_build_of_a_type_is_refused_with_who_is_at_it(engine):
    with closing(builder.build("small")) as lines:
        next(lines)
        first = ImageBuild.objects.get()
        with pytest.raises(CommandError) as caught:
            call_command("buildimage", "small")
        sentence = f"{first.requested_by} has been building small since {first.started_at:%F %T}"
        assert sentence in str(caught.value)
    assert ImageBuild.objects.get().state == BuildState.CANCELLED


def test_of_builds_that_begin_at_once_one_begins(engine, in_thread):
    kind, barrier, ends = make_type("small"), threading.Barrier(4), []

    def begin():
        barrier.wait()
        try:
            ends.append(ImageBuild.objects.begin(kind, tag=TAG, requested_by="shell:a").state)
        except BuildInProgress:
            ends.append("refused")

    threads = [threading.Thread(target=in_thread(begin)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ends) == ["building", "refused", "refused", "refused"]


def test_what_a_killed_builder_left_is_failed_by_the_next(engine):
    left = make_build(BuildState.BUILDING, sandbox_type=make_type("small"))
    elsewhere = make_build(BuildState.BUILDING, sandbox_type=make_type("gui"))
    expire(left)
    call_command("buildimage", "small")
    left.refresh_from_db()
    assert (left.state, left.worker_until) == ("failed", None)
    assert "not heard of for 30 s" in left.detail
    assert ImageBuild.objects.filter(state=BuildState.SUCCEEDED).count() == 1
    assert ImageBuild.objects.fail_abandoned() == 0
    expire(elsewhere)
    assert ImageBuild.objects.fail_abandoned() == 1


def test_a_queued_build_is_the_next_one_to_run(engine):
    queued = make_build(
        BuildState.QUEUED, sandbox_type=make_type("small"), requested_by="admin:root"
    )
    call_command("buildimage", "small")
    row = ImageBuild.objects.get()
    assert (row.pk, row.state, row.requested_by) == (queued.pk, "succeeded", "admin:root")


def test_a_builder_that_lost_its_lease_does_not_move_the_tag(engine, monkeypatch):
    monkeypatch.setattr(builder, "SAVE_SECONDS", 60)
    with closing(builder.build("small")) as lines:
        next(lines)
        expire(ImageBuild.objects.get())
        ImageBuild.objects.fail_abandoned()
        with pytest.raises(builder.BuildFailed, match="silent for too long"):
            list(lines)
    assert engine.find_image(TAG) is None
    assert "not heard of" in ImageBuild.objects.get().detail


def test_a_type_whose_image_the_admin_changed_is_pointed_out(engine, capsys):
    kind = make_type("small")
    kind.image = "elsewhere/small:2"
    kind.save()
    call_command("buildimage", "small")
    assert "Mind: the admin says that small uses elsewhere/small:2" in capsys.readouterr().out


def test_a_dockerfile_without_a_type_makes_no_row(engine, tmp_path):
    file = tmp_path / "images" / "boat" / "Dockerfile"
    file.parent.mkdir()
    file.write_text("FROM scratch\n")
    with pytest.raises(CommandError, match="no sandbox type 'boat'"):
        call_command("buildimage", "boat")
    assert not ImageBuild.objects.exists()


def test_a_very_long_log_keeps_its_end(engine, monkeypatch):
    monkeypatch.setattr(builder, "LOG_CHARACTERS", 20)
    call_command("buildimage", "small")
    assert ImageBuild.objects.get().log.endswith(f"{TAG}\n"[-20:])
    assert len(ImageBuild.objects.get().log) == 20


@pytest.mark.parametrize("state", BuildState)
def test_a_build_moves_only_where_its_machine_leads(state):
    for new_state in BuildState:
        build = make_build(state)
        fields = {"digest": "sha256:1"} if new_state == BuildState.SUCCEEDED else {}
        if new_state in BUILD_TRANSITIONS[state]:
            build.move_to(new_state, **fields)
            assert ImageBuild.objects.get(pk=build.pk).state == new_state
        else:
            with pytest.raises(ValueError, match=f"cannot become {new_state}"):
                build.move_to(new_state, **fields)
        ImageBuild.objects.all().delete()


def test_a_build_that_somebody_else_moved_is_a_conflict():
    build = make_build(BuildState.BUILDING)
    ImageBuild.objects.get().move_to(BuildState.CANCELLED)
    with pytest.raises(StateConflict):
        build.move_to(BuildState.FAILED)
    assert {"queued", "building"} == OPEN_BUILDS


def test_an_ended_builder_leaves_no_thread(engine):
    before = threading.active_count()
    call_command("buildimage", "small")
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def leave_a_check_behind(engine):
    """Do what a builder does that is killed in its check; return its row."""
    engine.images["image"] = "sha256:1"
    engine.start(SandboxSpec(name="image-check-1", image="image"))
    return make_build(BuildState.BUILDING, sandbox_type=make_type("small"))


def test_the_reaper_removes_what_a_killed_builder_left_and_closes_its_row(engine, fake):
    build = leave_a_check_behind(engine)
    assert not reaper.reap()
    assert [seen.name for seen in engine.inspect_all()] == ["image-check-1"]
    expire(build)
    reaper.reap(dry_run=True)
    assert [seen.name for seen in engine.inspect_all()] == ["image-check-1"]
    assert not reaper.reap()
    assert list(engine.inspect_all()) == []
    assert ImageBuild.objects.get().state == BuildState.FAILED


def test_what_the_next_build_has_started_is_not_taken_for_left(engine, monkeypatch):
    build = leave_a_check_behind(engine)
    expire(build)
    look = build_check.left_over

    def look_while_the_next_begins(deployer):
        names = look(deployer)
        ImageBuild.objects.fail_abandoned()
        return names

    monkeypatch.setattr(build_check, "left_over", look_while_the_next_begins)
    build_check.clear_up(build)
    assert [seen.name for seen in engine.inspect_all()] == ["image-check-1"]
    engine.vanish("image-check-1")


def test_a_killed_build_is_closed_also_where_its_engine_is_away(engine, fake):
    expire(leave_a_check_behind(engine))
    engine.fail_inspect = Unavailable("the engine is away")
    report = reaper.reap()
    engine.fail_inspect = None
    assert "the engine is away" in report.errors[0]
    assert ImageBuild.objects.get().state == BuildState.FAILED
    engine.vanish("image-check-1")

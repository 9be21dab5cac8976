from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import pytest

from deployers.errors import Rejected, Unavailable
from sandboxes import actions, lifecycle, registry
from sandboxes.models import Event, Sandbox, SandboxType, Session
from sandboxes.refusals import Refused
from sandboxes.states import State, StopReason
from tests.endings import nothing_is_left, release

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_created_sandbox_runs_and_its_path_is_recorded(fake, alice):
    sandbox = actions.create(alice, session_key="s", meta={"a": 1}, environment={"B": "2"})
    row = Sandbox.objects.get()
    assert (row.name, row.state, row.owner_id) == (sandbox.name, State.RUNNING, alice.user_id)
    assert (row.session.key, row.meta, row.environment) == ("s", {"a": 1}, {"B": "2"})
    assert row.url
    assert Path(row.workspace).is_dir()
    assert list(Event.objects.values_list("new_state", "actor")) == [
        ("pending", "user:alice"),
        ("starting", "user:alice"),
        ("running", "user:alice"),
    ]


def test_the_name_is_committed_before_the_deployer_is_called(fake, alice):
    seen = []

    def look(name):
        seen.append((name, Sandbox.objects.filter(name=name, state=State.STARTING).exists()))

    fake.fail_start = look
    sandbox = actions.create(alice)
    assert seen == [(sandbox.name, True)]


@pytest.mark.parametrize(
    ("error", "again_later"),
    [(Unavailable("the engine is away"), True), (Rejected("there is no such image"), False)],
)
def test_a_start_that_fails_leaves_nothing_and_says_why(fake, alice, error, again_later):
    fake.fail_start = error
    fake.needs_host_port = True
    with pytest.raises(lifecycle.StartFailed, match=str(error)) as caught:
        actions.create(alice)
    assert caught.value.again_later is again_later
    row = Sandbox.objects.get()
    assert (row.state, row.stop_reason) == (State.STOPPED, StopReason.FAILED)
    assert str(error) in row.detail
    assert nothing_is_left(fake)


def test_a_guest_that_never_answers_is_given_up_with_the_stage_and_the_setting(
    fake, alice, platform
):
    platform.CREATE_TIMEOUT = 1
    fake.guest_delay = 60
    with pytest.raises(lifecycle.StartFailed, match=r"guest did not answer.*CREATE_TIMEOUT"):
        actions.create(alice)
    assert nothing_is_left(fake)


def test_a_sandbox_that_dies_while_it_starts_is_told_at_once(fake, alice):
    fake.guest_delay, fake.dies_after = 60, 0
    with pytest.raises(lifecycle.StartFailed, match="it ended before its guest answered"):
        actions.create(alice)
    assert nothing_is_left(fake)


def test_an_async_type_is_the_same_type(fake, alice):
    assert actions.create(alice, type_name="base_async").sandbox_type.name == "base"


def test_a_disabled_type_is_refused(fake, alice):
    SandboxType.objects.filter(name="base").update(enabled=False)
    with pytest.raises(Refused, match="no sandbox type 'base'"):
        actions.create(alice)


def test_a_type_that_the_deployer_cannot_make_is_refused_before_any_row(fake, alice):
    SandboxType.objects.filter(name="base").update(runtime_config={"colour": "red"})
    with pytest.raises(Refused, match="colour"):
        actions.create(alice)
    assert not Sandbox.objects.exists()
    assert not Session.objects.exists()


def test_a_mount_dir_is_used_where_it_is_allowed_and_never_deleted(fake, alice, platform, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    if os.geteuid() == 0:
        os.chown(mine, 1000, 1000)
    with pytest.raises(Refused, match="ALLOW_MOUNT_DIR"):
        actions.create(alice, mount_dir=str(mine))
    platform.ALLOW_MOUNT_DIR = True
    sandbox = actions.create(alice, mount_dir=str(mine))
    assert sandbox.workspace == str(mine)
    release(alice, sandbox)
    assert Sandbox.objects.get().state == State.STOPPED
    assert mine.is_dir()


@pytest.fixture
def image_of_base(fake):
    """The name of the base type's image, on a deployer that has images but not this one."""
    fake.supports_images, fake.images = True, {}
    return registry.image_of("base", "")


def test_a_missing_image_is_pulled_first(fake, alice, image_of_base):
    fake.offered = frozenset({image_of_base})
    actions.create(alice)
    assert image_of_base in fake.images


def test_an_image_that_cannot_be_pulled_is_told_and_leaves_nothing(fake, alice, image_of_base):
    with pytest.raises(lifecycle.StartFailed, match=re.escape(image_of_base)):
        actions.create(alice)
    assert nothing_is_left(fake)


def test_a_pull_that_takes_longer_goes_on_and_the_caller_is_told_to_ask_again(
    fake, alice, platform, image_of_base, monkeypatch
):
    fake.offered, may_end = frozenset({image_of_base}), threading.Event()
    pull = fake.pull

    def slow_pull(reference):
        may_end.wait(30)
        pull(reference)

    monkeypatch.setattr(fake, "pull", slow_pull)
    platform.CREATE_TIMEOUT = 0.1
    with pytest.raises(lifecycle.StartFailed, match="still being pulled") as caught:
        actions.create(alice)
    assert caught.value.again_later
    may_end.set()
    platform.CREATE_TIMEOUT = 30
    assert actions.create(alice)
    assert fake.calls["pull"] == 1


@pytest.mark.parametrize("folder", ["/", "/etc", "/nowhere", "workspaces", "data"])
def test_a_mount_dir_that_is_the_hosts_or_ours_is_refused(fake, alice, platform, settings, folder):
    platform.ALLOW_MOUNT_DIR = True
    ours = {"workspaces": platform.DEFAULT_MOUNT_DIR, "data": settings.DATA_DIR}
    Path(platform.DEFAULT_MOUNT_DIR).mkdir(parents=True)
    with pytest.raises(Refused) as caught:
        actions.create(alice, mount_dir=str(ours.get(folder, folder)))
    assert caught.value.field == "mount_dir"


def test_a_workspace_that_cannot_be_made_leaves_nothing_that_resists(fake, alice, platform):
    platform.DEFAULT_MOUNT_DIR = "/dev/null/workspaces"
    with pytest.raises(lifecycle.StartFailed, match="Not a directory"):
        actions.create(alice)
    assert Sandbox.objects.get().state == State.STOPPED

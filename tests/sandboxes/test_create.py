from __future__ import annotations

import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from deployers.errors import PortTaken, Rejected, Unavailable
from sandboxes import actions, lifecycle, reaper, registry
from sandboxes.actions import halting
from sandboxes.models import Event, PortLease, Sandbox, SandboxType, Session
from sandboxes.refusals import CapReached, Ended, NotRunning, Refused, Unknown
from sandboxes.states import State, StopReason
from tests.factories import let_work_behind_end
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def release(caller, sandbox):
    """Release it and wait until what goes on behind the answer has ended."""
    actions.release(caller, sandbox.name)
    let_work_behind_end()


def nothing_is_left(fake):
    return (
        not list(fake.inspect_all())
        and not PortLease.objects.exists()
        and not any(Path(row.workspace).exists() for row in Sandbox.objects.all())
    )


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


def test_a_removal_that_fails_leaves_it_stopping_for_the_reaper(fake, alice):
    sandbox = actions.create(alice)
    fake.fail_remove = Unavailable("the engine is away")
    release(alice, sandbox)
    row = Sandbox.objects.get()
    assert (row.state, row.detail) == (State.STOPPING, "the engine is away")
    assert row.worker_until is not None


def test_a_port_is_leased_and_given_back(fake, alice):
    fake.needs_host_port = True
    sandbox = actions.create(alice)
    assert PortLease.objects.get().sandbox == sandbox
    release(alice, sandbox)
    assert nothing_is_left(fake)


def test_a_halted_sandbox_keeps_its_port(fake, alice):
    fake.needs_host_port = True
    sandbox = actions.create(alice)
    port = PortLease.objects.get().port
    actions.halt(alice, sandbox.name)
    actions.resume(alice, sandbox.name)
    assert PortLease.objects.get().port == port


def test_a_port_that_a_stranger_holds_is_skipped(fake, alice):
    fake.needs_host_port, tried = True, []

    def taken_once(name):
        tried.append(PortLease.objects.get().port)
        return PortTaken("in use", port=tried[0]) if len(tried) == 1 else None

    fake.fail_start = taken_once
    actions.create(alice)
    assert len(tried) == 2
    assert PortLease.objects.get().port == tried[1]


def test_a_full_port_range_is_named(fake, alice, platform):
    platform.PORT_RANGE, fake.needs_host_port = (20000, 20001), True
    actions.create(alice)
    with pytest.raises(lifecycle.StartFailed, match="All 1 ports of PORT_RANGE"):
        actions.create(alice)


def test_parallel_creates_get_distinct_ports(fake, alice, platform, in_thread):
    platform.PORT_RANGE, fake.needs_host_port = (20000, 20008), True
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(in_thread(lambda _: actions.create(alice)), range(8)))
    assert sorted(PortLease.objects.values_list("port", flat=True)) == list(range(20000, 20008))


def test_the_cap_is_never_exceeded_by_parallel_creates(fake, alice, platform, in_thread):
    platform.MAX_SANDBOX_INSTANCES = 3

    def create(_):
        try:
            return actions.create(alice)
        except CapReached:
            return None

    with ThreadPoolExecutor(12) as pool:
        made = [sandbox for sandbox in pool.map(in_thread(create), range(12)) if sandbox]
    assert len(made) == 3
    assert Sandbox.objects.count() == 3
    actions.release(alice, made[0].name)
    assert actions.create(alice)


def test_a_burst_queues_instead_of_starting_all_at_once(
    fake, alice, platform, in_thread, monkeypatch
):
    monkeypatch.setattr(lifecycle, "_slots", threading.BoundedSemaphore(2))
    running, most, lock = 0, 0, threading.Lock()
    start = fake.start

    def counted(spec):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        try:
            return start(spec)
        finally:
            with lock:
                running -= 1

    monkeypatch.setattr(fake, "start", counted)
    fake.start_delay = 0.05
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(in_thread(lambda _: actions.create(alice)), range(8)))
    assert most == 2
    assert Sandbox.objects.filter(state=State.RUNNING).count() == 8


def test_a_create_that_waited_too_long_in_the_queue_is_told(fake, alice, platform, monkeypatch):
    monkeypatch.setattr(lifecycle, "_slots", threading.BoundedSemaphore(1))
    lifecycle._slots.acquire()
    platform.CREATE_TIMEOUT = 0.1
    with pytest.raises(lifecycle.StartFailed, match="waited in the queue"):
        actions.create(alice)
    assert nothing_is_left(fake)


def test_one_that_is_ended_while_it_waits_in_the_queue_is_told_so(
    fake, alice, in_thread, monkeypatch
):
    monkeypatch.setattr(lifecycle, "_slots", threading.BoundedSemaphore(1))
    lifecycle._slots.acquire()
    with ThreadPoolExecutor(1) as pool:
        creating = pool.submit(in_thread(actions.create), alice)
        wait_until(Sandbox.objects.filter(state=State.PENDING).exists)
        actions.cleanup(alice)
        lifecycle._slots.release()
        with pytest.raises(Ended, match="ended by another request"):
            creating.result(30)
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


def test_callers_see_and_end_their_own_only(fake, alice, bob):
    mine, theirs = actions.create(alice, session_key="s"), actions.create(bob, session_key="s")
    with pytest.raises(Unknown):
        actions.find(alice, theirs.name)
    actions.release(alice, theirs.name)
    assert actions.status(bob, theirs.name) == "running"
    assert actions.cleanup(alice) == 1
    assert actions.status(alice, mine.name) is None
    assert actions.status(bob, theirs.name) == "running"


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


def test_released_sandboxes_that_still_are_removed_make_room_under_the_cap(fake, alice, platform):
    platform.MAX_SANDBOX_INSTANCES, fake.remove_delay = 1, 0.3
    first = actions.create(alice)
    actions.release(alice, first.name)
    assert Sandbox.objects.get().state == State.STOPPING
    assert actions.create(alice)


def test_a_release_answers_before_the_removal_has_ended(fake, alice):
    sandbox = actions.create(alice)
    fake.remove_delay = 0.5
    actions.release(alice, sandbox.name)
    assert Sandbox.objects.get().state == State.STOPPING
    assert actions.status(alice, sandbox.name) is None
    let_work_behind_end()
    assert Sandbox.objects.get().state == State.STOPPED


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
    find_live = actions.find_live

    def moved_meanwhile(caller, identity):
        found = find_live(caller, identity)
        Sandbox.objects.get().move_to(State.HALTING, actor="another", url="")
        return found

    monkeypatch.setattr(halting, "find_live", moved_meanwhile)
    with pytest.raises(NotRunning, match="Another request"):
        actions.halt(alice, sandbox.name)


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

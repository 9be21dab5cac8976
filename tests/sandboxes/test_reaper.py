from __future__ import annotations

import dataclasses
import threading
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.utils import timezone

from deployers import make_deployer
from deployers.errors import Unavailable
from deployers.observation import Phase
from deployers.specs import SandboxSpec
from sandboxes import actions, reaper, workers
from sandboxes.models import Event, PortLease, Sandbox, Session
from sandboxes.querysets import SandboxQuerySet
from sandboxes.states import State, StopReason
from tests.endings import release
from tests.factories import let_work_behind_end, make_sandbox, make_user, make_warm
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def reap(**options):
    """Run one pass, and let what goes on behind it end."""
    report = reaper.reap(**options)
    let_work_behind_end()
    return report


def test_a_pass_over_healthy_sandboxes_changes_nothing(fake, alice):
    actions.create(alice)
    halted = actions.create(alice)
    actions.halt(alice, halted.name)
    assert not reap()
    assert set(Sandbox.objects.values_list("state", flat=True)) == {State.RUNNING, State.HALTED}


def test_a_sandbox_that_vanished_is_lost(fake, alice):
    sandbox = actions.create(alice)
    fake.vanish(sandbox.name)
    assert reap().lost == [sandbox.name]
    row = Sandbox.objects.get()
    assert (row.state, row.stop_reason) == (State.STOPPED, StopReason.LOST)


def test_a_sandbox_without_a_row_is_removed_as_an_orphan(fake):
    fake.start(SandboxSpec(name="left-behind", image="image"))
    assert reap(dry_run=True).orphans == ["left-behind"]
    assert [seen.name for seen in fake.inspect_all()] == ["left-behind"]
    assert reap().orphans == ["left-behind"]
    assert not list(fake.inspect_all())


def test_what_another_installation_started_is_left_alone(fake):
    stranger = make_deployer("fake", instance="another")
    stranger.start(SandboxSpec(name="theirs", image="image"))
    assert not reap()
    assert [seen.name for seen in stranger.inspect_all()] == ["theirs"]
    stranger.vanish("theirs")


@pytest.mark.parametrize("state", [State.PENDING, State.STARTING, State.STOPPING])
def test_what_a_dead_worker_left_unfinished_is_finished(fake, state):
    sandbox = make_sandbox(state)
    PortLease.objects.create(sandbox=sandbox, port=50000)
    fake.start(SandboxSpec(name=sandbox.name, image="image"))
    assert not reap()
    Sandbox.objects.update(worker_until=timezone.now() - timedelta(seconds=1))
    assert reap().abandoned == [sandbox.name]
    assert Sandbox.objects.get().state == State.STOPPED
    assert not PortLease.objects.exists()
    assert not list(fake.inspect_all())


def test_a_port_of_one_that_is_gone_is_given_back(fake):
    for number, state in enumerate((State.STOPPED, State.STOPPING, State.HALTED)):
        PortLease.objects.create(sandbox=make_sandbox(state), port=50000 + number)
    reaper.leftovers.give_back_ports(reaper.Report(), dry_run=True)
    assert PortLease.objects.count() == 3
    reap()
    assert not PortLease.objects.filter(sandbox__state=State.STOPPED).exists()
    assert PortLease.objects.filter(port=50001).exists()


def test_a_removal_that_failed_is_tried_again(fake, alice):
    sandbox = actions.create(alice)
    fake.fail_remove = Unavailable("the engine is away")
    release(alice, sandbox)
    Sandbox.objects.update(worker_until=timezone.now() - timedelta(seconds=1))
    reap()
    assert Sandbox.objects.get().state == State.STOPPING
    fake.fail_remove = None
    Sandbox.objects.update(worker_until=timezone.now() - timedelta(seconds=1))
    reap()
    assert Sandbox.objects.get().state == State.STOPPED


def test_an_engine_that_is_away_is_reported_and_nothing_is_taken_for_lost(fake, alice):
    actions.create(alice)
    fake.fail_inspect = Unavailable("the engine is away")
    report = reap()
    assert (report.errors, report.lost) == (["the engine is away"], [])
    assert Sandbox.objects.get().state == State.RUNNING


def test_a_sandbox_that_moved_meanwhile_is_left_to_whom_moved_it(fake, alice, monkeypatch):
    sandbox = actions.create(alice)
    actions.halt(alice, sandbox.name)
    fake.vanish(sandbox.name)
    inspect_all = fake.inspect_all

    def started_meanwhile():
        Sandbox.objects.get().move_to(State.RESUMING, actor="user:alice")
        return inspect_all()

    monkeypatch.setattr(fake, "inspect_all", started_meanwhile)
    reap()
    assert Sandbox.objects.get().state == State.RESUMING


def test_old_records_are_forgotten_with_their_events_and_sessions(fake, alice, platform):
    platform.RELEASED_KEY_TTL = 60
    sandbox = actions.create(alice, session_key="s")
    release(alice, sandbox)
    assert not reap()
    long_ago = timezone.now() - timedelta(seconds=61)
    Sandbox.objects.update(stopped_at=long_ago)
    Session.objects.update(last_active_at=long_ago)
    assert reap().forgotten == 1
    for model in (Sandbox, Event, Session):
        assert not model.objects.exists()


def test_records_are_kept_for_ever_with_a_ttl_of_0(fake, platform):
    platform.RELEASED_KEY_TTL = 0
    make_sandbox(State.STOPPED, stopped_at=timezone.now() - timedelta(days=999))
    assert not reap()


def test_the_command_says_what_it_would_remove(fake, capsys):
    make_user()
    fake.start(SandboxSpec(name="left-behind", image="image"))
    call_command("reapsandboxes", "--dry-run")
    output = capsys.readouterr().out
    assert "orphans 1" in output
    assert "  orphans: left-behind" in output
    assert list(fake.inspect_all())


def test_an_orphan_that_resists_does_not_hide_the_lost(fake, alice, caplog):
    sandbox = actions.create(alice)
    fake.vanish(sandbox.name)
    fake.start(SandboxSpec(name="stubborn", image="image"))
    fake.fail_remove = lambda name: Unavailable("no") if name == "stubborn" else None
    for _ in range(2):
        assert reap().orphans == ["stubborn"]
    sandbox.refresh_from_db()
    assert sandbox.stop_reason == StopReason.LOST
    assert "The orphan stubborn is not removed yet: no" in caplog.text


@pytest.mark.parametrize("why", ["abandoned", "lost", "orphans"])
def test_a_removal_that_hangs_keeps_no_other_waiting(fake, alice, why):
    names = [actions.create(alice).name for _ in range(2)]
    let_work_behind_end()
    if why == "abandoned":
        late = timezone.now() - timedelta(seconds=1)
        stopping = {"state": State.STOPPING, "stop_reason": StopReason.RELEASED}
        Sandbox.objects.update(**stopping, worker_until=late)
    elif why == "lost":
        for name in names:
            fake.kill(name)
    else:
        Sandbox.objects.all().delete()
    go_on, removed = threading.Event(), []

    def hang_at_first(name):
        first = not removed
        removed.append(name)
        if first:
            go_on.wait(60)

    fake.fail_remove = hang_at_first
    try:
        assert set(getattr(reaper.reap(), why)) == set(names)
        wait_until(lambda: len(list(fake.inspect_all())) == 1, seconds=5)
        assert [seen.name for seen in fake.inspect_all()] == removed[:1]
        # What is being removed is not removed a second time.
        assert not reaper.reap()
        assert len(removed) == 2
    finally:
        go_on.set()
        let_work_behind_end()


def test_a_sandbox_that_was_stopped_outside_is_halted_and_keeps_its_files(fake, alice):
    sandbox = actions.create(alice)
    fake.stop(sandbox.name)
    reap()
    row = Sandbox.objects.get()
    assert (row.state, row.detail) == (State.HALTED, "it was stopped outside")


def test_a_paused_one_that_nobody_has_used_is_resumed(fake, alice):
    unused, used = actions.create(alice), actions.create(alice)
    Sandbox.objects.filter(pk=used.pk).update(first_used_at=timezone.now())
    frozen = make_sandbox(State.WARM, frozen=True)
    fake.start(SandboxSpec(name=frozen.name, image="image"))
    for sandbox in (unused, used, frozen):
        fake.pause(sandbox.name)
    assert not reap()
    phases = {name: fake.inspect(name).phase for name in (unused.name, used.name, frozen.name)}
    assert phases == {
        unused.name: Phase.READY,
        used.name: Phase.PAUSED,
        frozen.name: Phase.PAUSED,
    }


def test_an_address_that_changed_outside_is_written_down(fake, alice):
    sandbox = actions.create(alice)
    Sandbox.objects.update(url="http://127.0.0.1:9")
    assert not reap()
    assert Sandbox.objects.get().url == sandbox.url


@pytest.mark.parametrize("published", [False, True])
def test_of_two_with_one_address_the_one_that_does_not_answer_there_is_lost(
    fake, alice, monkeypatch, published
):
    keeper, loser = actions.create(alice), actions.create(alice)
    look = fake.inspect_all

    def look_again():
        for seen in look():
            # Behind a published port, the address is another than the url.
            shared = {"address": "172.18.0.3"} if published else {}
            shared |= {"url": keeper.url} if seen.name == loser.name or not published else {}
            yield dataclasses.replace(seen, **shared)

    monkeypatch.setattr(fake, "inspect_all", look_again)
    assert reap().lost == [loser.name]
    loser.refresh_from_db()
    said = "172.18.0.3" if published else keeper.url
    assert (loser.stop_reason, said in loser.detail) == (StopReason.LOST, True)
    assert Sandbox.objects.get(pk=keeper.pk).state == State.RUNNING


def lent_in_vain(alice, *, worker, seconds=120):
    """Lend a sandbox so long ago, by this worker that has not said so."""
    sandbox = actions.create(alice)
    let_work_behind_end()
    then = timezone.now() - timedelta(seconds=seconds)
    Sandbox.objects.filter(pk=sandbox.pk).update(worker=worker, claimed_at=then, last_used_at=then)
    return sandbox


@pytest.fixture
def dead_worker():
    """The mark of a process of this machine that has ended."""
    scope, pid, _ = workers.current().split(":")
    return f"{scope}:{pid}:1"


def test_what_a_dead_worker_lent_and_nobody_used_is_ended(fake, alice, dead_worker):
    sandbox = lent_in_vain(alice, worker=dead_worker)
    assert reap(dry_run=True).unanswered == [sandbox.name]
    assert reap().unanswered == [sandbox.name]
    assert not list(fake.inspect_all())
    # The answer may have gone out in the last moment: then its caller need not notice.
    heir = actions.restore(sandbox.name, actor="test")
    assert (heir.state, heir.workspace) == (State.RUNNING, sandbox.workspace)


def test_what_was_used_or_lent_just_now_or_by_a_live_worker_is_kept(fake, alice, dead_worker):
    used = lent_in_vain(alice, worker=dead_worker)
    Sandbox.objects.filter(pk=used.pk).update(first_used_at=timezone.now())
    called = lent_in_vain(alice, worker=dead_worker)
    Sandbox.objects.filter(pk=called.pk).update(last_used_at=timezone.now())
    lent_in_vain(alice, worker=dead_worker, seconds=30)
    # Nothing is said of a process that lives, however long it takes to write it down.
    lent_in_vain(alice, worker=workers.current(), seconds=7000)
    lent_in_vain(alice, worker="")
    assert not reap()


def test_a_worker_that_nobody_can_see_has_its_time_to_answer(fake, alice):
    lent_in_vain(alice, worker="another/machine:7:1", seconds=600)
    late = lent_in_vain(alice, worker="another/machine:7:1", seconds=700)
    assert reap().unanswered == [late.name]


@pytest.mark.parametrize("warm", [True, False])
def test_who_lent_it_answers_for_it_until_the_answer_is_out(fake, alice, warm):
    if warm:
        make_warm()
    sandbox = actions.create(alice)
    assert Sandbox.objects.get().worker == workers.current()
    let_work_behind_end()
    row = Sandbox.objects.get()
    assert (row.worker, row.timeline) == ("", sandbox.timeline)


def test_one_that_is_used_while_the_reaper_looks_is_kept(fake, alice, dead_worker, monkeypatch):
    sandbox = lent_in_vain(alice, worker=dead_worker)
    unanswered = SandboxQuerySet.unanswered

    def used_meanwhile(rows, now=None):
        found = unanswered(rows, now)
        Sandbox.objects.update(first_used_at=timezone.now())
        return found

    monkeypatch.setattr(SandboxQuerySet, "unanswered", used_meanwhile)
    reaper.reap()
    sandbox.refresh_from_db()
    assert sandbox.state == State.RUNNING


def test_a_question_that_breaks_keeps_no_other_from_being_asked(fake, alice, monkeypatch):
    sandbox = actions.create(alice)
    fake.vanish(sandbox.name)

    def break_(rows, now=None):
        raise TypeError("nobody thought of this")

    monkeypatch.setattr(SandboxQuerySet, "unanswered", break_)
    report = reaper.reap()
    assert report.lost == [sandbox.name]
    assert "nobody thought of this" in report.errors[0]


def test_one_that_resists_being_put_right_hides_no_other(fake, alice, monkeypatch):
    paused, gone = actions.create(alice), actions.create(alice)
    fake.pause(paused.name)
    fake.vanish(gone.name)

    def refuse(name):
        raise Unavailable("it is half gone")

    monkeypatch.setattr(fake, "unpause", refuse)
    report = reaper.reap()
    assert (report.lost, report.errors) == ([gone.name], [f"{paused.name}: it is half gone"])

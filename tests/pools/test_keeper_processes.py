"""Keepers in processes of their own, and what becomes of one that is killed."""

from __future__ import annotations

import signal
from collections import Counter

import pytest
from django.core.management import CommandError, call_command

from pools.keeper import Keeper
from pools.models import Pool
from sandboxes import actions, deployment, reaper, workers
from sandboxes.models import Sandbox
from sandboxes.states import State, StopReason
from tests.factories import let_work_behind_end, make_sandbox, make_type
from tests.pools.test_keeper import make_pool, warm
from tests.processes import OtherProcess, at_once
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def keep_once():
    """Run one pass; return the names of what it started."""
    keeper = Keeper()
    report = keeper.keep()
    keeper.wait()
    keeper.close()
    return report.started


def keep_with_a_guest_that_never_answers():
    deployment.current().guest_delay = 3600
    return keep_once()


def maintain(seconds):
    """Run the command until a signal; its sandboxes live in this process."""
    call_command("maintainpools", interval=seconds)
    return "ended"


def test_keepers_in_two_processes_do_not_overfill(fake):
    for name in ("base", "red", "blue"):
        make_pool(name, target=3)
    first, second = at_once(OtherProcess(keep_once), OtherProcess(keep_once))
    assert not set(first) & set(second)
    counts = Counter(warm().values_list("sandbox_type__name", flat=True))
    assert counts == {"base": 3, "red": 3, "blue": 3}
    assert Sandbox.objects.count() == 9


def test_two_processes_share_a_ceiling(fake):
    make_pool(target=3, ceiling=3)
    at_once(OtherProcess(keep_once), OtherProcess(keep_once))
    assert Sandbox.objects.count() == 3


def test_what_a_killed_keeper_had_begun_is_taken_over_at_once_and_made_up_for(fake, keep):
    make_pool(target=2)
    begun = Sandbox.objects.filter(state__in=(State.PENDING, State.STARTING))
    with OtherProcess(keep_with_a_guest_that_never_answers) as killed:
        killed.begin()
        wait_until(lambda: begun.filter(state=State.STARTING).count() == 2)
        names = set(begun.values_list("name", flat=True))
        assert not reaper.reap().abandoned
        killed.kill()
        assert all(workers.is_dead(row.worker) for row in begun)
    assert set(reaper.reap().abandoned) == names
    let_work_behind_end()
    ended = Sandbox.objects.filter(name__in=names)
    assert set(ended.values_list("state", "stop_reason")) == {(State.STOPPED, StopReason.FAILED)}
    assert len(keep().started) == 2
    assert warm().count() == 2


def test_a_row_that_was_written_and_not_begun_is_taken_over_too(fake, keep):
    with OtherProcess(workers.current) as other:
        other.begin()
        mark = other.result()
    make_pool(target=1)
    pending = make_sandbox(State.PENDING, owner=None, worker=mark)
    assert not keep()
    assert reaper.reap().abandoned == [pending.name]
    assert len(keep().started) == 1


def test_one_pass_of_the_command_fills_the_pools_and_says_so(fake, platform, capsys):
    platform.POOL_SIZE = 2
    call_command("maintainpools", "--once")
    assert "started 2, outdated 0, surplus 0, frozen 0, errors 0" in capsys.readouterr().out
    assert warm().count() == 2
    call_command("maintainpools", "--once")
    assert "started 0" in capsys.readouterr().out


def test_one_pass_of_the_command_says_what_failed(fake, platform, capsys):
    platform.POOL_SIZE = 1
    kind = make_type()
    kind.runtime_config = {"colour": "red"}
    kind.save()
    call_command("maintainpools", "--once")
    assert "error: base: Fake sandboxes have no runtime_config: colour." in capsys.readouterr().out


def test_the_running_command_hears_a_claim_and_ends_on_sigterm(fake, alice, platform):
    platform.POOL_SIZE = 1
    # It would look again by itself only after an hour.
    with OtherProcess(maintain, 3600) as keeper:
        keeper.begin()
        first = wait_until(lambda: warm().first())
        assert actions.create(alice).pk == first.pk
        second = wait_until(lambda: warm().first())
        assert second.pk != first.pk
        keeper.process.send_signal(signal.SIGTERM)
        assert keeper.result() == "ended"
    assert Pool.objects.get().target == 1


def test_a_second_running_command_does_no_harm(fake, alice, platform):
    platform.POOL_SIZE = 2
    with OtherProcess(maintain, 0.05) as one, OtherProcess(maintain, 0.05) as other:
        one.begin()
        other.begin()
        wait_until(lambda: warm().count() == 2)
        actions.create(alice)
        wait_until(lambda: warm().count() == 2)
        for keeper in (one, other):
            keeper.process.send_signal(signal.SIGTERM)
            assert keeper.result() == "ended"
    assert Sandbox.objects.count() == 3


def test_an_interval_of_0_is_refused(fake):
    with pytest.raises(CommandError, match="give seconds above 0"):
        call_command("maintainpools", interval=0)

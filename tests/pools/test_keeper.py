from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import chain

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from deployers.errors import Rejected, Unavailable
from pools.keeper import MOST_COMING, Keeper
from pools.models import Pool
from sandboxes import actions, ending, lifecycle, specs
from sandboxes.actions.creating import draft
from sandboxes.models import Event, Sandbox, SandboxType
from sandboxes.refusals import Refused
from sandboxes.states import State, StopReason
from tests.factories import let_work_behind_end, make_sandbox, make_type, make_warm

pytestmark = pytest.mark.django_db(transaction=True)


def make_pool(name="base", **fields):
    kind = make_type(name)
    SandboxType.objects.filter(pk=kind.pk).update(runs_without_image=True)
    return Pool.objects.create(sandbox_type=kind, **fields)


def warm():
    return Sandbox.objects.filter(state=State.WARM)


def test_a_pool_is_filled_to_its_target_and_no_further(fake, keep):
    make_pool(target=3)
    report = keep()
    assert set(warm().values_list("name", flat=True)) == set(report.started)
    assert len(report.started) == 3
    assert not keep()
    assert fake.calls["start"] == 3


def test_a_warm_one_is_of_its_type_and_nobodys(fake, keep):
    pool = make_pool(target=1)
    keep()
    row = Sandbox.objects.get()
    assert (row.sandbox_type, row.owner, row.session) == (pool.sandbox_type, None, None)
    assert row.recipe
    assert row.url
    assert list(Event.objects.values_list("new_state", "actor")) == [
        ("pending", "keeper"),
        ("starting", "keeper"),
        ("warm", "keeper"),
    ]


def test_a_pool_of_a_type_that_cannot_be_made_here_says_so_and_rests(fake, alice, keep):
    pool = make_pool("gui", target=2)
    SandboxType.objects.update(runs_without_image=False)
    assert keep().errors
    pool.refresh_from_db()
    assert "The type 'gui' needs an image" in pool.last_error
    assert (pool.failures, pool.retry_at > timezone.now()) == (1, True)
    assert not Sandbox.objects.exists()
    with pytest.raises(Refused, match="needs an image") as caught:
        actions.create(alice, type_name="gui")
    assert (caught.value.status, caught.value.field) == (422, "sandbox_type")


def test_no_engine_is_asked_while_a_pool_is_locked(fake, keep, monkeypatch):
    asked = []

    def ask_the_engine(_):
        asked.append(connection.in_atomic_block)
        return False

    # Docker's networks are looked at, or made, by the first question.
    monkeypatch.setattr(type(fake), "needs_host_port", property(ask_the_engine), raising=False)
    make_pool(target=2)
    assert len(keep().started) == 2
    assert set(asked) == {False}


def test_what_was_lent_is_made_up_for(fake, alice, keep):
    make_pool(target=2)
    keep()
    actions.create(alice)
    assert len(keep().started) == 1
    assert warm().count() == 2


def test_several_pools_are_filled_in_one_pass(fake, keep):
    pools = [make_pool(name, target=2) for name in ("base", "red", "blue")]
    assert len(keep().started) == 6
    counts = Counter(warm().values_list("sandbox_type", flat=True))
    assert counts == {pool.sandbox_type_id: 2 for pool in pools}


def test_what_is_coming_is_counted(fake, keep):
    make_pool(target=3)
    make_sandbox(State.PENDING, owner=None)
    make_sandbox(State.STARTING, owner=None)
    make_sandbox(State.STARTING)  # a caller's own
    assert len(keep().started) == 1


@pytest.mark.postgres  # with SQLite nobody else writes within the keeper's transaction
def test_one_that_comes_up_while_it_is_counted_is_not_overlooked(fake, keep, in_thread):
    coming = draft(make_pool(target=1).sandbox_type)
    coming.save(force_insert=True)
    coming.move_to(State.STARTING, actor="keeper")

    def come_up():
        coming.move_to(State.WARM, actor="keeper", url="http://127.0.0.1:9")

    def come_up_after_the_first_count(execute, sql, *rest):
        answer = execute(sql, *rest)
        if '"sandboxes_sandbox"' in sql and coming.state == State.STARTING:
            with ThreadPoolExecutor(1) as threads:
                threads.submit(in_thread(come_up)).result(30)
        return answer

    with connection.execute_wrapper(come_up_after_the_first_count):
        assert not keep().started
    assert warm().get() == coming


def test_keepers_in_several_threads_do_not_overfill(fake, in_thread):
    for name in ("base", "red"):
        make_pool(name, target=4)
    keepers = [Keeper() for _ in range(4)]

    def run(keeper):
        report = keeper.keep()
        keeper.wait()
        return report.started

    with ThreadPoolExecutor(4) as threads:
        started = list(chain.from_iterable(threads.map(in_thread(run), keepers)))
    for keeper in keepers:
        keeper.close()
    assert len(started) == len(set(started)) == 8
    assert Counter(warm().values_list("sandbox_type__name", flat=True)) == {"base": 4, "red": 4}


def test_a_ceiling_counts_those_that_are_lent(fake, alice, keep):
    make_pool(target=3, ceiling=4)
    for _ in range(2):
        actions.create(alice)
    keep()
    assert Sandbox.objects.count() == 4
    assert warm().count() == 2
    assert not keep()


def test_the_cap_on_all_sandboxes_holds_for_warm_ones(fake, platform, keep):
    platform.MAX_SANDBOX_INSTANCES = 3
    for name in ("base", "red"):
        make_pool(name, target=2)
    keep()
    assert Sandbox.objects.count() == 3
    assert not keep()


def test_a_paused_pool_starts_nothing_and_lends_what_it_has(fake, alice, keep):
    pool = make_pool(target=2)
    keep()
    Pool.objects.update(paused=True)
    assert actions.create(alice).timeline["kind"] == "warm"
    assert not keep()
    Pool.objects.filter(pk=pool.pk).update(paused=False)
    assert len(keep().started) == 1


def test_a_pool_shrinks_when_its_target_falls(fake, keep):
    make_pool(target=3)
    oldest = min(keep().started, key=lambda name: Sandbox.objects.get(name=name).pk)
    Pool.objects.update(target=1)
    report = keep()
    assert len(report.surplus) == 2
    assert oldest in report.surplus
    let_work_behind_end()
    assert [seen.name for seen in fake.inspect_all()] == [warm().get().name]
    ended = Sandbox.objects.exclude(state=State.WARM)
    assert set(ended.values_list("state", "stop_reason")) == {(State.STOPPED, StopReason.SURPLUS)}


def test_the_warm_ones_of_a_disabled_type_go(fake, keep):
    make_pool(target=2)
    keep()
    SandboxType.objects.update(enabled=False)
    assert len(keep().surplus) == 2
    let_work_behind_end()
    assert not list(fake.inspect_all())


def test_the_warm_ones_of_a_pool_that_is_gone_go(fake, alice, keep):
    make_pool(target=2)
    keep()
    lent = actions.create(alice)
    Pool.objects.all().delete()
    assert len(keep().surplus) == 1
    let_work_behind_end()
    assert [seen.name for seen in fake.inspect_all()] == [lent.name]


def borrow_before(monkeypatch, alice):
    """Let a caller come between a decision to end a warm sandbox and its end."""
    stop_soon, lent = ending.stop_soon, []

    def borrow_first(sandbox, **options):
        if not lent:
            lent.append(actions.create(alice))
            assert lent[0].pk == sandbox.pk
        return stop_soon(sandbox, **options)

    monkeypatch.setattr(ending, "stop_soon", borrow_first)
    return lent


def nobody_took(lent, fake):
    let_work_behind_end()
    row = Sandbox.objects.get(pk=lent[0].pk)
    return row.state == State.RUNNING and row.name in [seen.name for seen in fake.inspect_all()]


def test_a_surplus_one_that_is_lent_meanwhile_stays(fake, alice, keep, monkeypatch):
    make_pool(target=1)
    keep()
    Pool.objects.update(target=0)
    lent = borrow_before(monkeypatch, alice)
    keep()
    assert nobody_took(lent, fake)


def test_one_of_a_type_without_a_pool_that_is_lent_meanwhile_stays(fake, alice, keep, monkeypatch):
    make_warm()
    lent = borrow_before(monkeypatch, alice)
    keep()
    assert nobody_took(lent, fake)


@pytest.mark.parametrize(("failures", "seconds"), [(0, 1), (1, 2), (5, 32), (6, 60), (99, 60)])
def test_a_pool_whose_starts_fail_rests_longer_each_time_and_says_why(
    fake, keep, failures, seconds
):
    make_pool(target=1, failures=failures, last_error="earlier")
    fake.fail_start = Unavailable("the engine is away")
    before = timezone.now()
    assert len(keep().started) == 1
    after, pool = timezone.now(), Pool.objects.get()
    assert pool.failures == failures + 1
    assert "the engine is away" in pool.last_error
    assert before <= pool.retry_at - timedelta(seconds=seconds) <= after
    assert not Sandbox.objects.exclude(state=State.STOPPED)


def test_a_pool_that_rests_starts_nothing_and_lends_what_it_has(fake, alice, keep):
    make_pool(target=2)
    keep()
    Pool.objects.update(failures=1, last_error="x", retry_at=timezone.now() + timedelta(hours=1))
    assert actions.create(alice).timeline["kind"] == "warm"
    assert not keep()


def test_a_pool_recovers_when_a_start_succeeds(fake, keep):
    make_pool(target=1)
    fake.fail_start = Rejected("there is no such image")
    keep()
    fake.fail_start = None
    Pool.objects.update(retry_at=timezone.now())
    keep()
    pool = Pool.objects.get()
    assert (pool.failures, pool.retry_at, pool.last_error) == (0, None, "")
    assert warm().count() == 1


def test_several_that_fail_together_are_one_failure(fake, keep):
    make_pool(target=4, failures=5, last_error="earlier")
    fake.fail_start = Unavailable("the engine is away")
    assert len(keep().started) == 4
    assert Pool.objects.get().failures == 6


def test_a_type_that_the_deployer_cannot_make_does_not_stop_the_others(fake, keep):
    broken, healthy = make_pool("broken", target=1), make_pool("healthy", target=1)
    SandboxType.objects.filter(pool=broken).update(runtime_config={"colour": "red"})
    report = keep()
    assert len(report.errors) == 1
    assert "colour" in report.errors[0]
    assert warm().get().sandbox_type == healthy.sandbox_type
    broken.refresh_from_db()
    assert "colour" in broken.last_error


def test_a_large_pool_is_filled_in_portions(fake, keep):
    make_pool(target=MOST_COMING + 3)
    assert len(keep().started) == MOST_COMING
    assert len(keep().started) == 3
    assert not keep()


def test_the_sandboxes_that_callers_wait_for_come_first(fake, alice, keep):
    make_pool(target=3)
    waited_for = [make_sandbox(State.STARTING) for _ in range(lifecycle.AT_ONCE + 1)]
    assert len(keep().started) == 1
    assert len(keep().started) == 1
    Sandbox.objects.filter(pk__in=[one.pk for one in waited_for]).update(
        state=State.RUNNING, worker_until=None, url="http://127.0.0.1:9"
    )
    assert len(keep().started) == 1
    assert not keep()


def test_what_was_written_is_started_though_what_should_go_cannot_be_ended(fake, keep, monkeypatch):
    kind = make_pool(target=2).sandbox_type
    make_warm(2, sandbox_type=kind, recipe="as it was")
    current = make_warm(sandbox_type=kind)[0]

    def fail(sandbox, **_):
        raise OperationalError("the connection is lost")

    with monkeypatch.context() as patched:
        patched.setattr(ending, "stop_soon", fail)
        with pytest.raises(OperationalError):
            keep()
    keep()
    assert Sandbox.objects.filter(recipe=current.recipe, state=State.WARM).count() == 2


def test_a_full_pool_is_not_troubled_by_an_engine_that_refuses(fake, keep, monkeypatch):
    pool = make_pool(target=1)
    keep()

    def refuse(sandbox):
        raise Unavailable("the engine is away")

    monkeypatch.setattr(specs, "validate", refuse)
    assert not keep()
    pool.refresh_from_db()
    assert (pool.failures, pool.last_error) == (0, "")

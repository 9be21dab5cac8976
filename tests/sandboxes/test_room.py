"""Whoever asks for a sandbox under a cap goes before what is only held ready."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from pools.models import Pool
from sandboxes import actions, ending
from sandboxes.actions import inserting
from sandboxes.models import Sandbox
from sandboxes.refusals import CapReached
from sandboxes.states import State, StopReason
from tests.factories import let_work_behind_end, make_caller, make_sandbox, make_type, make_warm
from tests.processes import OtherProcess, at_once
from tests.sandboxes.sessions import recycle_all, touch

pytestmark = pytest.mark.django_db(transaction=True)


def create_one(caller):
    try:
        return actions.create(caller)
    except CapReached:
        return None


def create_in_threads(name, count):
    """Create so many sandboxes at once; return how many were lent."""
    from django.db import connection

    def create(_):
        try:
            return create_one(caller)
        finally:
            connection.close()

    caller = make_caller(name)
    with ThreadPoolExecutor(count) as threads:
        return sum(map(bool, threads.map(create, range(count))))


def most_at_once():
    """Return how many sandboxes existed at most at one time, as their events tell."""
    rows = Sandbox.objects.exclude(stop_reason=StopReason.FAILED)
    changes = [(row.created_at, 1) for row in rows]
    changes += [(row.stopped_at, -1) for row in rows if row.stopped_at]
    count = most = 0
    for _, change in sorted(changes):
        count += change
        most = max(most, count)
    return most


def test_a_warm_one_of_another_type_makes_room_under_the_cap(fake, alice, platform):
    spare = make_warm(sandbox_type=make_type("other"))[0]
    platform.MAX_SANDBOX_INSTANCES = 1
    lent = actions.create(alice, type_name="base")
    spare.refresh_from_db()
    assert (spare.state, spare.stop_reason) == (State.STOPPED, StopReason.SURPLUS)
    assert spare.detail == "a caller needed its place"
    assert Sandbox.objects.exclude(state=State.STOPPED).get().pk == lent.pk


def test_a_warm_one_of_another_type_makes_no_room_under_a_pools_ceiling(fake, alice):
    other = make_warm(sandbox_type=make_type("other"))[0]
    Pool.objects.create(sandbox_type=make_type(), target=0, ceiling=1)
    actions.create(alice)
    with pytest.raises(CapReached, match="the pool of base allows"):
        actions.create(alice)
    other.refresh_from_db()
    assert other.state == State.WARM


def test_a_batch_that_cannot_fit_ends_and_starts_nothing(fake, alice, platform):
    lent = actions.create(alice)
    make_warm()
    make_warm(sandbox_type=make_type("other"))
    platform.MAX_SANDBOX_INSTANCES = 3
    begun = fake.calls["start"]
    with pytest.raises(CapReached, match="room for 2 sandboxes and not for 3"):
        actions.create_many(alice, 3, type_name="base")
    states = list(Sandbox.objects.order_by("state").values_list("state", flat=True))
    assert states == [State.RUNNING, State.WARM, State.WARM]
    assert fake.calls["start"] == begun
    assert Sandbox.objects.filter(claimed_at__isnull=False).get().pk == lent.pk
    assert len(actions.create_many(alice, 2, type_name="base")) == 2


def test_a_batch_above_a_ceiling_ends_and_starts_nothing(fake, alice):
    Pool.objects.create(sandbox_type=make_type(), target=0, ceiling=2)
    make_warm(2)
    with pytest.raises(CapReached, match="the ceiling of the pool of base, which is 2"):
        actions.create_many(alice, 3)
    assert set(Sandbox.objects.values_list("state", flat=True)) == {State.WARM}


def test_what_its_pool_is_making_and_what_is_removed_is_room_for_a_batch(fake, alice, platform):
    kind = make_type()
    platform.MAX_SANDBOX_INSTANCES = 2
    make_sandbox(State.STARTING, sandbox_type=kind, owner=None)
    make_sandbox(State.STOPPING, sandbox_type=kind)
    inserting.check_batch(kind, 2, may_be_warm=True)
    with pytest.raises(CapReached, match="room for 1 sandboxes"):
        inserting.check_batch(kind, 2, may_be_warm=False)


def test_a_warm_one_that_is_lent_meanwhile_makes_no_room(fake, alice, bob, platform, monkeypatch):
    stop_soon, lent = ending.stop_soon, []
    spare = make_warm(can_bind=False)[0]
    platform.MAX_SANDBOX_INSTANCES = 1

    def borrow_first(sandbox, **options):
        lent.append(actions.create(bob))
        return stop_soon(sandbox, **options)

    monkeypatch.setattr(ending, "stop_soon", borrow_first)
    with pytest.raises(CapReached, match="MAX_SANDBOX_INSTANCES"):
        actions.create(alice, environment={"A": "b"})
    assert [sandbox.pk for sandbox in lent] == [spare.pk]
    assert Sandbox.objects.get().state == State.RUNNING


def test_what_left_between_two_looks_makes_room(fake, alice, platform, monkeypatch):
    platform.MAX_SANDBOX_INSTANCES = 1
    leaving = actions.create(alice)
    leaving.move_to(State.STOPPING, actor="test", stop_reason=StopReason.RELEASED)
    is_leaving = inserting._is_leaving

    def gone_by_now(sandbox, **options):
        ending.finish_stop(leaving, actor="test")
        return is_leaving(sandbox, **options)

    monkeypatch.setattr(inserting, "_is_leaving", gone_by_now)
    assert actions.create(alice)


def test_what_else_a_session_had_comes_back_when_there_is_room_for_it(
    fake, alice, platform, caplog
):
    names = [actions.create(alice, session_key="s").name for _ in range(2)]
    recycle_all()
    platform.MAX_SANDBOX_INSTANCES = 1
    serving = touch(alice, names[0])
    let_work_behind_end()
    assert Sandbox.objects.exclude(state=State.STOPPED).get().name == serving.name
    assert f"{names[1]} was not restored yet: All 1 sandboxes" in caplog.text
    platform.MAX_SANDBOX_INSTANCES = 2
    assert touch(alice, names[1]).state == State.RUNNING


def test_fifty_creates_at_once_do_not_exceed_the_cap(fake, alice, platform):
    platform.MAX_SANDBOX_INSTANCES = 5
    make_warm(3)
    assert create_in_threads("alice", 50) == 5
    assert most_at_once() == 5


def test_creates_of_two_processes_do_not_exceed_the_cap(fake, platform):
    platform.MAX_SANDBOX_INSTANCES = 5
    make_type()
    made = at_once(*(OtherProcess(create_in_threads, name, 25) for name in ("alice", "bob")))
    assert sum(made) == 5
    assert Sandbox.objects.count() == 5


def test_a_ceiling_holds_for_creates_of_two_processes(fake):
    Pool.objects.create(sandbox_type=make_type(), target=0, ceiling=3)
    made = at_once(*(OtherProcess(create_in_threads, name, 10) for name in ("alice", "bob")))
    assert sum(made) == 3
    assert Sandbox.objects.count() == 3

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.utils import timezone

from deployers.errors import Rejected
from pools.keeper import Keeper
from pools.models import Pool
from sandboxes import actions
from sandboxes.actions import claiming
from sandboxes.actions.wishes import Wish
from sandboxes.models import Event, Sandbox, SandboxType
from sandboxes.querysets import SandboxQuerySet
from sandboxes.states import State, StopReason
from tests.factories import let_work_behind_end, make_caller, make_sandbox, make_type, make_warm
from tests.processes import OtherProcess, at_once
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def kind_of(sandbox):
    return sandbox.timeline["kind"]


def claim_all(name):
    """Lend warm sandboxes one by one until there are none; return their names."""
    caller, kind, names = make_caller(name), make_type(), []
    while lent := claiming.claim(caller, kind, Wish(), 1, deadline=float("inf")):
        names += [sandbox.name for sandbox in lent]
    return names


def test_claim_lends_each_warm_sandbox_once(fake, alice, in_thread):
    warm = {sandbox.name for sandbox in make_warm(20)}
    with ThreadPoolExecutor(30) as pool:
        lent = list(pool.map(in_thread(lambda _: actions.create(alice)), range(30)))
    assert len({sandbox.name for sandbox in lent}) == 30
    assert {sandbox.name for sandbox in lent if kind_of(sandbox) == "warm"} == warm
    assert Counter(map(kind_of, lent)) == {"warm": 20, "cold": 10}
    events = Event.objects.filter(old_state=State.WARM, new_state=State.RUNNING)
    assert Counter(events.values_list("sandbox__name", flat=True)) == dict.fromkeys(warm, 1)


def test_two_processes_that_claim_at_once_share_none(fake):
    warm = {sandbox.name for sandbox in make_warm(20)}
    first, second = at_once(OtherProcess(claim_all, "alice"), OtherProcess(claim_all, "bob"))
    assert sorted(first + second) == sorted(warm)
    owners = dict(Sandbox.objects.values_list("name", "owner__username"))
    assert owners == dict.fromkeys(first, "alice") | dict.fromkeys(second, "bob")


def test_a_warm_one_is_lent_without_a_call_to_the_deployer(fake, alice):
    warm = make_warm()[0]
    before = Counter(fake.calls)
    lent = actions.create(alice)
    assert fake.calls == before
    row = Sandbox.objects.get()
    assert (lent.pk, row.state, row.owner_id) == (warm.pk, State.RUNNING, alice.user_id)
    assert row.claimed_at is not None
    let_work_behind_end()
    row.refresh_from_db()
    phases = [name for name, _ in row.timeline["phases"]]
    assert row.timeline["kind"] == "warm"
    assert phases == ["queued", "started", "guest ready", "claimed"]


def test_one_of_the_type_as_it_is_now_is_lent_before_an_outdated_one(fake, alice):
    outdated = make_warm()[0]
    SandboxType.objects.update(environment={"COLOUR": "blue"})
    current = make_warm()[0]
    assert current.recipe != outdated.recipe
    assert [actions.create(alice).pk for _ in range(2)] == [current.pk, outdated.pk]


def test_a_frozen_one_is_lent_last_and_resumed(fake, alice, paused):
    frozen, awake = make_warm(2)
    Sandbox.objects.filter(pk=frozen.pk).update(frozen=True)
    fake.pause(frozen.name)
    assert actions.create(alice).pk == awake.pk
    assert frozen.name in paused()
    lent = actions.create(alice)
    assert lent.pk == frozen.pk
    assert frozen.name not in paused()
    assert not Sandbox.objects.get(pk=frozen.pk).frozen
    assert "resumed" in [name for name, _ in lent.timeline["phases"]]


def test_a_frozen_one_that_cannot_be_resumed_is_given_up(fake, alice, monkeypatch):
    frozen = make_warm(frozen=True)[0]

    def refuse(name):
        raise Rejected("it is half gone")

    monkeypatch.setattr(fake, "unpause", refuse)
    assert actions.create(alice).pk != frozen.pk
    let_work_behind_end()
    frozen.refresh_from_db()
    assert (frozen.state, frozen.stop_reason) == (State.STOPPED, StopReason.LOST)
    assert "half gone" in frozen.detail


def test_a_dead_one_is_given_up_and_another_is_lent(fake, alice):
    dead, healthy = make_warm(2)
    fake.kill(dead.name)
    assert actions.create(alice).pk == healthy.pk
    let_work_behind_end()
    dead.refresh_from_db()
    assert (dead.state, dead.stop_reason) == (State.STOPPED, StopReason.LOST)
    assert "found dead" in dead.detail
    assert not dead.can_be_restored
    assert [seen.name for seen in fake.inspect_all()] == [healthy.name]


def test_one_whose_address_was_given_to_another_is_given_up_and_another_is_lent(fake, alice):
    moved, healthy = make_warm(2)
    Sandbox.objects.filter(pk=moved.pk).update(url=healthy.url)
    assert actions.create(alice, environment={"FRUIT": "fig"}).pk == healthy.pk
    let_work_behind_end()
    moved.refresh_from_db()
    assert (moved.state, moved.stop_reason) == (State.STOPPED, StopReason.LOST)
    assert "another sandbox's guest" in moved.detail


def test_a_new_one_is_made_where_all_warm_ones_are_dead(fake, alice):
    for dead in make_warm(2):
        fake.vanish(dead.name)
    lent = actions.create(alice)
    assert (lent.state, kind_of(lent)) == (State.RUNNING, "cold")


def test_a_type_has_warm_ones_of_its_own(fake, alice):
    other = make_type("other")
    SandboxType.objects.filter(pk=other.pk).update(runs_without_image=True)
    warm = make_warm(sandbox_type=other)[0]
    assert actions.create(alice, type_name="base").pk != warm.pk
    assert actions.create(alice, type_name="other").pk == warm.pk


def test_an_async_type_is_lent_from_the_same_pool(fake, alice):
    warm = make_warm()[0]
    assert actions.create(alice, type_name="base_async").pk == warm.pk


class Held:
    """Starts of the fake deployer that wait, one name after another, until they are let go."""

    def __init__(self, fake, holds):
        self.names, self._holds, self._go_on = [], holds, threading.Event()
        fake.fail_start = self

    def __call__(self, name):
        self.names.append(name)
        if len(self.names) <= self._holds:
            assert self._go_on.wait(30)

    def let_go(self):
        self._go_on.set()


@pytest.fixture
def keeper(fake):
    keeper = Keeper()
    yield keeper
    keeper.close()


def waiting(kind, count):
    return lambda: claiming._waiting[kind.pk] == count


def test_a_create_waits_for_the_next_warm_one_where_the_pool_is_making_it(
    fake, alice, keeper, in_thread
):
    kind, held = make_type(), Held(fake, holds=1)
    Pool.objects.create(sandbox_type=kind, target=1)
    coming = keeper.keep().started
    wait_until(lambda: held.names == coming)
    with ThreadPoolExecutor(1) as pool:
        creating = pool.submit(in_thread(actions.create), alice)
        wait_until(waiting(kind, 1))
        held.let_go()
        lent = creating.result(30)
    assert ([lent.name], kind_of(lent)) == (coming, "warm")
    assert held.names == coming


def test_the_second_who_waits_for_one_sandbox_gets_a_new_one(fake, alice, keeper, in_thread):
    kind, held = make_type(), Held(fake, holds=1)
    Pool.objects.create(sandbox_type=kind, target=1)
    coming = keeper.keep().started
    wait_until(lambda: held.names == coming)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(in_thread(actions.create), alice)
        wait_until(waiting(kind, 1))
        second = actions.create(alice)
        held.let_go()
        first = first.result(30)
    assert ([first.name], kind_of(first)) == (coming, "warm")
    assert (second.name in coming, kind_of(second)) == (False, "cold")


def test_a_create_is_cold_at_once_where_the_pool_makes_none(fake, alice):
    make_sandbox(State.PENDING, owner=None)
    lent = actions.create(alice)
    assert lent.timeline["because"] == "no warm one was ready"


def test_a_create_is_cold_where_the_one_it_waits_for_fails(fake, alice, in_thread):
    kind, coming = make_type(), make_sandbox(State.STARTING, owner=None)
    with ThreadPoolExecutor(1) as pool:
        creating = pool.submit(in_thread(actions.create), alice)
        wait_until(waiting(kind, 1))
        now = timezone.now()
        coming.move_to(State.STOPPING, actor="keeper", stop_reason=StopReason.FAILED)
        coming.move_to(State.STOPPED, actor="keeper", stopped_at=now)
        assert kind_of(creating.result(30)) == "cold"


def test_one_that_becomes_warm_while_it_is_looked_for_is_lent(fake, alice, monkeypatch):
    kind = make_type()
    coming = SandboxQuerySet.coming

    def warm_meanwhile(rows, of):
        if not Sandbox.objects.exists():
            make_warm()
        return coming(rows, of)

    monkeypatch.setattr(SandboxQuerySet, "coming", warm_meanwhile)
    lent = claiming.claim_next(alice, kind, Wish(), deadline=time.monotonic() + 30)
    assert lent is not None
    assert lent.pk == Sandbox.objects.get().pk

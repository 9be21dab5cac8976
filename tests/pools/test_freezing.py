from __future__ import annotations

import pytest

from deployers.errors import Unavailable
from pools.models import Pool
from sandboxes import actions
from sandboxes.models import Sandbox
from tests.pools.test_keeper import make_pool, warm

pytestmark = pytest.mark.django_db(transaction=True)


def names():
    return set(warm().values_list("name", flat=True))


def test_a_pool_that_freezes_pauses_its_warm_ones_and_resumes_them_when_it_does_not(
    fake, keep, paused
):
    make_pool(target=2, freeze=True)
    keep()
    keep()
    assert paused() == names()
    assert set(warm().values_list("frozen", flat=True)) == {True}
    assert not keep()
    Pool.objects.update(freeze=False)
    assert set(keep().frozen) == names()
    assert not paused()
    assert set(warm().values_list("frozen", flat=True)) == {False}


def test_only_the_pools_that_wish_it_freeze(fake, keep, paused):
    cold = make_pool("base", target=1, freeze=True)
    make_pool("red", target=1)
    keep()
    keep()
    assert paused() == {warm().get(sandbox_type=cold.sandbox_type).name}


def test_nothing_is_frozen_where_the_deployer_cannot(fake, keep):
    make_pool(target=1, freeze=True)
    fake.supports_pause = False
    keep()
    assert not keep()
    assert not warm().get().frozen


def test_one_that_is_lent_before_it_is_paused_runs(fake, alice, keep, paused, monkeypatch):
    make_pool(target=1)
    keep()
    Pool.objects.update(freeze=True)
    pause = fake.pause

    def borrow_first(name):
        actions.create(alice)
        pause(name)

    monkeypatch.setattr(fake, "pause", borrow_first)
    assert not keep().frozen
    assert not paused()
    assert not Sandbox.objects.get(owner__isnull=False).frozen


def test_an_engine_that_does_not_pause_leaves_a_sandbox_that_can_be_lent(
    fake, alice, keep, monkeypatch
):
    make_pool(target=1)
    keep()
    Pool.objects.update(freeze=True)

    def away(name):
        raise Unavailable("the engine is away")

    monkeypatch.setattr(fake, "pause", away)
    assert not keep().frozen
    assert not warm().get().frozen
    assert actions.create(alice).timeline["kind"] == "warm"

from __future__ import annotations

import pytest

from pools import seeding
from pools.models import Pool
from tests.factories import make_type

pytestmark = pytest.mark.django_db(transaction=True)


def sync(platform, size, types=("base",)):
    platform.POOL_SIZE, platform.DEFAULT_SANDBOX_TYPE = size, list(types)
    seeding.sync()
    return dict(Pool.objects.values_list("sandbox_type__name", "target"))


def test_each_default_type_gets_a_pool_of_the_configured_size(fake, platform):
    make_type("red")
    make_type("blue")
    assert sync(platform, 2, ["base", "red"]) == {"base": 2, "red": 2}


def test_a_target_that_the_admin_changed_is_kept(fake, platform):
    sync(platform, 2)
    Pool.objects.update(target=7)
    assert sync(platform, 2) == {"base": 7}


def test_a_changed_pool_size_is_applied_once(fake, platform):
    sync(platform, 2)
    Pool.objects.update(target=7)
    assert sync(platform, 3) == {"base": 3}
    Pool.objects.update(target=8)
    assert sync(platform, 3) == {"base": 8}


def test_a_pool_size_above_a_ceiling_fills_the_pool_up_to_it(fake, platform):
    sync(platform, 2)
    Pool.objects.update(ceiling=4)
    assert sync(platform, 9) == {"base": 4}


def test_pools_of_other_types_are_left_to_the_admin(fake, platform):
    Pool.objects.create(sandbox_type=make_type("red"), target=5)
    assert sync(platform, 1) == {"base": 1, "red": 5}
    assert sync(platform, 2) == {"base": 2, "red": 5}


def test_a_pool_whose_type_is_a_default_no_more_stays(fake, platform):
    make_type("red")
    sync(platform, 1, ["base", "red"])
    assert sync(platform, 2, ["base"]) == {"base": 2, "red": 1}


def test_the_target_of_a_pool_that_the_admin_made_is_kept(fake, platform):
    Pool.objects.create(sandbox_type=make_type("base"), target=7)
    assert sync(platform, 2) == {"base": 7}
    assert sync(platform, 3) == {"base": 3}

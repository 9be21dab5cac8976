"""Pools are edited in the admin by those who may."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission
from django.urls import reverse

from pools.models import Pool
from tests.factories import make_type, make_user

pytestmark = pytest.mark.django_db

ADD = "admin:pools_pool_add"


@pytest.fixture
def operator(client):
    user = make_user("operator", is_staff=True)
    names = ["view_pool", "add_pool", "change_pool", "view_sandboxtype"]
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    client.force_login(user)
    return client


def test_an_operator_wishes_for_a_pool(operator):
    kind = make_type()
    wish = {"sandbox_type": kind.pk, "target": 2, "ceiling": 5}
    assert operator.post(reverse(ADD), wish).status_code == 302
    pool = Pool.objects.get()
    assert (str(pool), pool.target, pool.ceiling, pool.paused) == ("Pool of base", 2, 5, False)
    edit = {
        "form-TOTAL_FORMS": 1,
        "form-INITIAL_FORMS": 1,
        "form-0-id": pool.pk,
        "form-0-target": 3,
        "form-0-ceiling": "",
        "form-0-paused": "on",
        "_save": "Save",
    }
    assert operator.post(reverse("admin:pools_pool_changelist"), edit).status_code == 302
    pool.refresh_from_db()
    assert (pool.target, pool.ceiling, pool.paused) == (3, None, True)


def test_a_target_above_the_ceiling_is_refused_in_words(operator):
    wish = {"sandbox_type": make_type().pk, "target": 3, "ceiling": 2}
    page = operator.post(reverse(ADD), wish)
    assert b"The target must not be above the ceiling." in page.content


def test_a_type_has_one_pool(operator):
    Pool.objects.create(sandbox_type=make_type())
    page = operator.post(reverse(ADD), {"sandbox_type": make_type().pk, "target": 1})
    assert b"already exists" in page.content

"""Which warm rows a claim asks for, and by which way the database finds them."""

from __future__ import annotations

import pytest
from django.db import connection

from sandboxes.models import Sandbox
from sandboxes.querysets import _claimable_sql
from sandboxes.states import State
from tests.factories import make_sandbox, make_type

pytestmark = pytest.mark.django_db(transaction=True)


def claimable(kind, **wish):
    asked = {"recipe": "now", "must_bind": False, "count": 10} | wish
    return [sandbox.name for sandbox in Sandbox.objects.claimable(kind, **asked)]


def test_those_of_the_recipe_come_first_then_those_that_are_awake():
    kind = make_type()
    made = [
        make_sandbox(State.WARM, recipe=recipe, frozen=frozen).name
        for recipe, frozen in [("old", False), ("now", True), ("old", True), ("now", False)]
    ]
    old, frozen, old_and_frozen, best = made
    assert claimable(kind) == [best, frozen, old, old_and_frozen]
    assert claimable(kind, count=1) == [best]


def test_only_warm_ones_of_the_type_that_can_take_an_environment():
    kind = make_type()
    able = make_sandbox(State.WARM, can_bind=True).name
    make_sandbox(State.WARM)
    make_sandbox(State.WARM, can_bind=True, sandbox_type=make_type("other"))
    make_sandbox(State.RUNNING, can_bind=True)
    assert claimable(kind, must_bind=True) == [able]


def test_rows_of_the_past_are_not_looked_through():
    if connection.vendor != "sqlite":
        pytest.skip("its plans depend on how many rows there are")
    with connection.cursor() as cursor:
        question = _claimable_sql(Sandbox, must_bind=False, locks=False)
        cursor.execute(f"EXPLAIN QUERY PLAN {question}", [State.WARM, 1, "now", 1])
        plan = " ".join(row[-1] for row in cursor.fetchall())
    assert "sandbox_state_idx" in plan

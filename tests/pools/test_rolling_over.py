"""Warm sandboxes are replaced when what their type is made of changes."""

from __future__ import annotations

import pytest

from deployers.errors import DeployerError, Unavailable
from pools.models import Pool
from sandboxes import actions, pulling, registry
from sandboxes.models import Sandbox, SandboxType
from sandboxes.states import State, StopReason
from tests.factories import let_work_behind_end, make_type
from tests.pools.test_keeper import make_pool, warm

pytestmark = pytest.mark.django_db(transaction=True)


def names():
    return set(warm().values_list("name", flat=True))


def ended_as(reason):
    return set(Sandbox.objects.filter(stop_reason=reason).values_list("name", flat=True))


@pytest.mark.parametrize(
    "changed",
    [
        {"environment": {"COLOUR": "blue"}},
        {"cpus": 2.0},
        {"memory_mb": 512},
        {"image": "mine:1"},
        {"network": "none"},
        {"timeout_seconds": 7},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_changed_type_has_new_ones_warm_before_the_old_ones_go(fake, keep, changed):
    make_pool(target=2)
    keep()
    old = names()
    SandboxType.objects.update(**changed)
    report = keep()
    assert (len(report.started), report.outdated) == (2, [])
    assert old < names()
    report = keep()
    assert (report.started, set(report.outdated)) == ([], old)
    assert len(names()) == 2
    assert not names() & old
    assert ended_as(StopReason.OUTDATED) == old
    assert not keep()


def test_an_old_one_goes_only_when_there_is_a_new_one_for_it(fake, keep):
    make_pool(target=2)
    keep()
    old, begun = names(), []
    SandboxType.objects.update(environment={"COLOUR": "blue"})

    def fail_the_second(name):
        begun.append(name)
        return Unavailable("not now") if len(begun) == 2 else None

    fake.fail_start = fail_the_second
    keep()
    assert old < names()
    assert len(keep().outdated) == 1
    # Two, or three where the pool does not rest: the one that came up may have come up last.
    assert len(names()) >= 2
    assert len(names() & old) == 1


def test_an_outdated_one_is_lent_while_there_is_nothing_better(fake, alice, keep):
    make_pool(target=1)
    keep()
    SandboxType.objects.update(environment={"COLOUR": "blue"})
    old = names()
    lent = actions.create(alice)
    assert ({lent.name}, lent.timeline["kind"]) == (old, "warm")
    assert len(keep().started) == 1


def test_a_pool_without_room_for_both_rolls_over_one_by_one(fake, keep):
    make_pool(target=2, ceiling=2)
    keep()
    old = names()
    SandboxType.objects.update(environment={"COLOUR": "blue"})
    for left in (1, 0):
        assert len(keep().outdated) == 1
        let_work_behind_end()
        assert len(keep().started) == 1
        assert len(names() & old) == left
        assert Sandbox.objects.exclude(state=State.STOPPED).count() == 2
    assert not keep()


def test_a_setting_that_sandboxes_are_made_with_rolls_the_pools_over(
    fake, keep, platform, tmp_path
):
    make_pool(target=1)
    keep()
    platform.READONLY_MOUNTS = {str(tmp_path): "/data"}
    assert len(keep().started) == 1
    assert len(keep().outdated) == 1


@pytest.fixture
def image(fake):
    """The name of the base type's image, on a deployer that has it."""
    name = registry.image_of("base", "")
    fake.supports_images, fake.images = True, {name: "sha256:1"}
    return name


def test_a_tag_that_moves_on_rolls_the_pool_over(fake, keep, image):
    make_pool(target=1)
    keep()
    assert warm().get().image_id == "sha256:1"
    old = names()
    fake.images[image] = "sha256:2"
    assert len(keep().started) == 1
    assert set(keep().outdated) == old
    assert warm().get().image_id == "sha256:2"
    assert not keep()


def test_an_image_that_is_pulled_for_the_first_one_does_not_outdate_it(fake, keep, image):
    fake.images, fake.offered = {}, frozenset({image})
    make_pool(target=2)
    keep()
    assert set(warm().values_list("image_id", flat=True)) == {fake.images[image]}
    assert not keep()


def test_an_engine_that_cannot_be_asked_ends_nothing(fake, keep, image, monkeypatch):
    make_pool(target=1)
    keep()

    def away(reference) -> DeployerError:
        raise Unavailable("the engine is away")

    monkeypatch.setattr(fake, "find_image", away)
    pulling.forget()
    report = keep()
    assert (report.errors, report.outdated) == (["base: the engine is away"], [])
    assert "the engine is away" in Pool.objects.get().last_error
    assert warm().count() == 1


def test_two_types_roll_over_apart(fake, keep):
    make_pool("base", target=1)
    make_pool("red", target=1)
    keep()
    SandboxType.objects.filter(name="red").update(environment={"COLOUR": "red"})
    keep()
    red = make_type("red")
    assert keep().outdated == [
        Sandbox.objects.get(stop_reason=StopReason.OUTDATED, sandbox_type=red).name
    ]

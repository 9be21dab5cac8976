"""Environment and files of a caller, given to a guest that was started before they were known."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployers.fake.deployer import _sandboxes
from deployers.fake.guest import FakeGuest
from sandboxes import actions, binding
from sandboxes.binding import File
from sandboxes.models import Sandbox
from sandboxes.states import State
from tests.factories import let_work_behind_end, make_warm
from tests.sandboxes.sessions import recycled, row_of, touch

pytestmark = pytest.mark.django_db(transaction=True)

FIG = {"FRUIT": "fig"}


def environment_of(fake, sandbox):
    return _sandboxes[fake.instance][sandbox.name].guest.env


def test_a_warm_one_is_given_an_environment(fake, alice):
    warm = make_warm()[0]
    before = sum(fake.calls.values())
    lent = actions.create(alice, environment=FIG)
    assert (lent.pk, sum(fake.calls.values())) == (warm.pk, before)
    assert lent.timeline["kind"] == "warm"
    assert Sandbox.objects.get().environment == FIG
    assert environment_of(fake, lent)["FRUIT"] == "fig"


def test_a_warm_one_is_given_files_and_environment_together(fake, alice):
    warm = make_warm()[0]
    lent = actions.create(alice, environment=FIG, files=(File("d/f", b"\0\xff"),))
    assert lent.pk == warm.pk
    assert environment_of(fake, lent)["FRUIT"] == "fig"
    assert Path(lent.workspace, "d", "f").read_bytes() == b"\0\xff"


def test_of_several_warm_ones_the_first_that_can_be_bound_is_given_an_environment(fake, alice):
    old, young = make_warm(2)
    Sandbox.objects.filter(pk=old.pk).update(can_bind=False)
    assert actions.create(alice, environment=FIG).pk == young.pk
    assert actions.create(alice).pk == old.pk


def test_each_caller_has_an_environment_of_their_own(fake, alice, bob):
    make_warm(2)
    hers = actions.create(alice, environment=FIG)
    his = actions.create(bob, environment={"COLOUR": "blue"})
    assert "COLOUR" not in environment_of(fake, hers)
    assert "FRUIT" not in environment_of(fake, his)
    assert environment_of(fake, his)["COLOUR"] == "blue"


def test_an_environment_lasts_over_a_recycling(fake, alice):
    make_warm()
    place = touch(alice, recycled(alice, environment=FIG).name)
    assert environment_of(fake, row_of(place))["FRUIT"] == "fig"


def test_an_environment_lasts_over_a_stop_and_a_start(fake, alice):
    make_warm()
    lent = actions.create(alice, environment=FIG)
    actions.halt(alice, lent.name)
    actions.resume(alice, lent.name)
    assert environment_of(fake, lent)["FRUIT"] == "fig"


def test_an_environment_is_kept_no_longer_than_its_sandbox(fake, alice):
    make_warm()
    lent = actions.create(alice, environment=FIG)
    actions.release(alice, lent.name)
    let_work_behind_end()
    row = Sandbox.objects.get()
    assert (row.state, row.environment) == (State.STOPPED, {})


@pytest.fixture
def guest():
    """Return a call that starts a guest of its own."""
    guests = []

    def start(**options):
        guests.append(FakeGuest(env={"SECRET_TOKEN": "s"}, files={}, **options))
        return guests[-1]

    yield start
    for one in guests:
        one.close()


def test_a_guest_is_asked_whether_it_can_be_bound(guest):
    assert binding.can_bind(guest().url, "s")
    assert not binding.can_bind(guest(can_bind=False).url, "s")
    assert not binding.can_bind(guest().url, "wrong")


def test_what_a_guest_refuses_is_told_in_its_words(guest):
    with pytest.raises(binding.BindingRefused, match=r"environment\.GUEST_X"):
        binding.bind(guest().url, "s", {"GUEST_X": "1"}, ())
    with pytest.raises(binding.BindingRefused, match="Invalid token"):
        binding.put_files(guest(can_bind=False).url, "wrong", (File("f", b""),))


def test_a_guest_with_another_secret_is_gone_rather_than_one_that_refuses(guest):
    url = guest().url
    with pytest.raises(binding.GuestGone):
        binding.bind(url, "wrong", FIG, ())
    with pytest.raises(binding.GuestGone):
        binding.put_files(url, "wrong", (File("f", b""),))
    for known in (url, guest(can_bind=False).url):
        assert binding.is_of_another(known, "wrong")
        assert not binding.is_of_another(known, "s")


def test_a_guest_that_has_gone_is_told_from_one_that_refuses(guest):
    gone = guest()
    gone.close()
    assert not binding.can_bind(gone.url, "s")
    with pytest.raises(binding.GuestGone):
        binding.knock(gone.url)
    with pytest.raises(binding.GuestGone):
        binding.bind(gone.url, "s", FIG, ())
    with pytest.raises(binding.GuestGone):
        binding.put_files(gone.url, "s", (File("f", b""),))


@pytest.mark.parametrize("can_bind", [True, False])
def test_files_reach_a_guest_of_any_age(guest, can_bind):
    one = guest(can_bind=can_bind)
    binding.give_files(one.url, "s", (File("a", b"1"), File("d/b", b"2")))
    assert one.files.kept == {"a": b"1", "d/b": b"2"}

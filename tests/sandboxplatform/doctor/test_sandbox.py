"""The check that makes, uses and releases a sandbox."""

from __future__ import annotations

import os
import signal

import pytest

from deployers.errors import Rejected, Unavailable
from sandboxes.models import Sandbox
from sandboxes.states import State
from sandboxplatform.doctor.catalogue import CHECKS
from sandboxplatform.doctor.examination import Check, examine
from sandboxplatform.doctor.findings import Status
from tests.endings import nothing_is_left
from tests.factories import make_sandbox
from tests.sandboxplatform.doctor.looking import examined


def test_a_sandbox_is_made_used_and_released(fake, subject):
    results = examined(subject, "sandbox")
    assert results["sandbox"].status is Status.OK, results
    assert all(each.status in (Status.OK, Status.WARN) for each in results.values()), results
    found = results["sandbox"].found
    phases = found.removeprefix("base: ").removesuffix("; gone").split(", ")
    assert [phase.split()[0] for phase in phases] == ["start", "shell", "write", "read", "release"]
    assert nothing_is_left(fake)
    assert Sandbox.objects.get().stop_reason == "released"


def test_a_start_that_fails_is_told_in_the_deployers_own_words(fake, subject):
    fake.fail_start = Rejected("The licence has ended: buy another.")
    result = examined(subject, "sandbox")["sandbox"]
    assert (result.status, "it did not start" in result.found) == (Status.FAIL, True)
    assert "The licence has ended: buy another." in result.fixes[0]
    assert nothing_is_left(fake)


def test_a_guest_that_never_answers_fails_with_the_stage(fake, subject):
    fake.guest_status = 500
    subject.platform.CREATE_TIMEOUT = 0.2
    result = examined(subject, "sandbox")["sandbox"]
    assert result.status is Status.FAIL
    assert "its guest did not answer in time; a larger CREATE_TIMEOUT" in result.fixes[0]
    assert nothing_is_left(fake)


def test_a_removal_that_fails_is_told_and_left_to_the_reaper(fake, subject):
    fake.fail_remove = Unavailable("The engine is busy.")
    result = examined(subject, "sandbox")["sandbox"]
    assert result.status is Status.FAIL
    assert "is not removed yet: The engine is busy." in result.found
    assert "reapsandboxes" in result.fixes[0]
    assert Sandbox.objects.get().state == State.STOPPING


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_start_leaves_nothing(fake, subject, number):
    before = signal.signal(number, signal.default_int_handler)
    fake.guest_status = 500

    def interrupt(_):
        fake.fail_inspect = None
        os.kill(os.getpid(), number)

    # It is first looked at when its guest has not answered for a while.
    subject.choose_deployer()
    (check,) = [check for check in CHECKS if check.name == "sandbox"]
    fake.fail_inspect = interrupt
    try:
        with pytest.raises(KeyboardInterrupt):
            list(examine([Check(name="sandbox", look=check.look, seconds=None)], subject))
    finally:
        signal.signal(number, before)
    assert Sandbox.objects.count() == 1
    assert nothing_is_left(fake)


def test_a_cap_that_is_reached_is_a_warning(fake, subject):
    subject.platform.MAX_SANDBOX_INSTANCES = 1
    make_sandbox(State.RUNNING)
    result = examined(subject, "sandbox")["sandbox"]
    assert result.status is Status.WARN
    assert "MAX_SANDBOX_INSTANCES" in result.fixes[0]
    assert Sandbox.objects.count() == 1

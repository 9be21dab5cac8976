"""The doctor's checks one by one, on the fake deployer and on things that are really broken."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deployers.errors import Rejected, Unavailable
from sandboxes import deployment, directory, pulling, registry, tokens
from sandboxes.models import Installation, PortLease, Sandbox, SandboxType
from sandboxes.states import State
from sandboxplatform.doctor import clock, disk, engine, limits, output, permissions, redis_server
from sandboxplatform.doctor import settings as settings_check
from sandboxplatform.doctor.catalogue import CHECKS
from sandboxplatform.doctor.disk import Space
from sandboxplatform.doctor.examination import Check, choose, examine
from sandboxplatform.doctor.findings import Finding, Result, Status, fail, ok, warn
from sandboxplatform.doctor.subject import Subject
from tests.factories import make_sandbox


@pytest.fixture
def platform(settings, tmp_path):
    before = dict(vars(settings.PLATFORM))
    settings.PLATFORM.DEFAULT_MOUNT_DIR = str(tmp_path / "workspaces")
    yield settings.PLATFORM
    settings.PLATFORM.__dict__.clear()
    settings.PLATFORM.__dict__.update(before)


@pytest.fixture
def subject(platform):
    return Subject(platform)


@pytest.fixture
def fake(platform, transactional_db):
    """The deployer of this process, with its knobs."""
    platform.CONTAINER_DEPLOYMENT = "fake"
    Installation.current_id()
    for forget in (deployment.forget, tokens.forget, directory.clear, pulling.forget):
        forget()
    deployer = deployment.current()
    yield deployer
    deployer.clear()
    deployment.forget()


def examined(subject, *names):
    return {each.name: each for each in examine(choose(CHECKS, names), subject)}


def seen(check, *arguments):
    """Return what a check finds, joined to one result."""
    return Result("check", list(check(*arguments)), 0)


def nothing_is_left(fake):
    return (
        not list(fake.inspect_all())
        and not Sandbox.objects.exclude(state=State.STOPPED).exists()
        and not any(Path(row.workspace).exists() for row in Sandbox.objects.all())
    )


# How checks are run and shown.


def test_a_check_that_breaks_or_hangs_does_not_stop_the_others(subject):
    never = threading.Event()

    def breaks(_):
        yield ok("seen before")
        raise RuntimeError("out of luck")

    def hangs(_):
        yield ok("seen before")
        never.wait()

    checks = [
        Check(name="breaks", look=breaks),
        Check(name="hangs", look=hangs, seconds=0.1),
        Check(name="well", look=lambda _: iter([ok("fine")])),
        Check(name="follows", look=lambda _: iter([ok("fine")]), needs=("hangs",)),
    ]
    results = list(examine(checks, subject))
    never.set()
    assert [str(each.status) for each in results] == ["fail", "fail", "ok", "skip"]
    assert "RuntimeError: out of luck; seen before" in results[0].found
    assert results[1].found == "no end within 0.1 s; seen before"
    assert results[3].found == "needs hangs, which failed"


def test_the_most_serious_finding_comes_first_and_fixes_are_indented():
    result = Result("disk", [ok("a"), warn("b", "do\nthis"), fail("c\nd", "do that")], 1.234)
    assert output.as_text(result, width=6) == (
        "FAIL  disk    c d; b; a\n      do that\n      do\n      this"
    )
    assert json.loads(json.dumps(output.as_json([result]))) == {
        "ok": False,
        "checks": [
            {
                "name": "disk",
                "status": "fail",
                "found": "c d; b; a",
                "fix": "do that do\nthis",
                "ms": 1.2,
            }
        ],
    }


def test_secrets_and_control_characters_never_reach_the_output(subject):
    subject.platform.BEARER_TOKEN = "very-secret-token"
    subject.platform.DATABASE_URL = "postgres://me:p%40ssword@host/name"
    said = "very-secret-token p@ssword tcp://me:hunter2@host \x1b[31mred"
    checks = [Check(name="talks", look=lambda _: iter([Finding(Status.WARN, said, said)]))]
    (result,) = examine(checks, subject)
    for text in (result.found, *result.fixes):
        assert text == "*** *** tcp://me:***@host \N{REPLACEMENT CHARACTER}[31mred"


def test_only_takes_along_what_a_check_needs():
    names = [check.name for check in choose(CHECKS, ["sandbox"])]
    assert names == ["database", "engine", "images", "sandbox"]
    assert [check.name for check in choose(CHECKS, [])] == [check.name for check in CHECKS]


# A sandbox.


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


# Engine and images.


def give_images(fake, images, offered=()):
    fake.images, fake.supports_images, fake.offered = images, True, frozenset(offered)


def test_an_image_that_a_registry_offers_is_a_warning_and_not_pulled(fake, subject):
    image = registry.image_of("base", "")
    give_images(fake, {}, [image])
    results = examined(subject, "sandbox")
    assert results["images"].status is Status.WARN
    assert f"docker pull {image}" in results["images"].fixes[0]
    assert results["sandbox"].status is Status.SKIP
    assert fake.calls["pull"] == 0


@pytest.mark.parametrize(
    ("name", "advice"),
    [("base", "python manage.py buildimage base"), ("gui", "RUNTIME_SANDBOX_REGISTRY")],
)
def test_an_image_that_is_nowhere_fails_and_says_how_to_get_it(fake, subject, name, advice):
    give_images(fake, {})
    subject.platform.DEFAULT_SANDBOX_TYPE = [name]
    result = examined(subject, "images")["images"]
    assert (result.status, advice in result.fixes[0]) == (Status.FAIL, True), result


def test_every_default_type_is_looked_for_and_disabled_ones_are_named(fake, subject):
    registry.sync()
    SandboxType.objects.filter(name="gui").update(enabled=False)
    subject.platform.DEFAULT_SANDBOX_TYPE = ["base", "gui"]
    result = examined(subject, "images")["images"]
    assert result.status is Status.FAIL
    assert result.found == "there is no type 'gui'; base needs none here"
    assert "DEFAULT_SANDBOX_TYPE" in result.fixes[0]


def test_a_slow_engine_is_a_warning():
    assert engine.judge_call(200).status is Status.OK
    assert engine.judge_call(201).status is Status.WARN


def test_a_choice_that_hangs_is_waited_for_once(subject):
    with subject._choosing:
        assert subject.deployer is None


# Ports.


@pytest.fixture
def taken_port():
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        yield stranger.getsockname()[1]


def test_the_servers_port_in_other_hands_fails(fake, subject, taken_port):
    subject.platform.PORT = taken_port
    result = examined(subject, "ports")["ports"]
    assert result.status is Status.FAIL
    assert f"127.0.0.1:{taken_port} is taken by another program" in result.found
    assert "PORT" in result.fixes[0]


def test_an_address_of_another_machine_fails(fake, subject):
    subject.platform.HOST = "192.0.2.1"
    result = examined(subject, "ports")["ports"]
    assert result.status is Status.FAIL
    assert "Set HOST to an address of this machine." in result.fixes[0]


def test_sandboxes_ports_in_other_hands_fail(fake, subject, taken_port):
    fake.needs_host_port = True
    subject.platform.PORT_RANGE = (taken_port, taken_port + 1)
    result = examined(subject, "ports")["ports"]
    assert "none of 1 ports that were tried is free" in result.found
    assert "PORT_RANGE" in result.fixes[0]


def test_a_range_that_is_all_leased_fails(fake, subject):
    fake.needs_host_port = True
    subject.platform.PORT_RANGE = (20000, 20001)
    PortLease.objects.create(port=20000, sandbox=make_sandbox(State.RUNNING))
    result = examined(subject, "ports")["ports"]
    assert "all 1 ports of PORT_RANGE [20000,20001] are leased" in result.found


def test_a_range_that_the_kernel_uses_too_is_a_warning(fake, subject):
    fake.needs_host_port = True
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    subject.platform.PORT_RANGE = (low, high + 1)
    result = examined(subject, "ports")["ports"]
    assert f"kernel's range for outgoing connections ({low}-{high})" in result.found
    assert any("ip_local_reserved_ports" in fix for fix in result.fixes)


# The machine.


@pytest.mark.parametrize(
    ("difference", "expected"),
    [(0, "ok"), (-2, "ok"), (2.1, "warn"), (-30, "warn"), (30.1, "fail"), (-900, "fail")],
)
def test_another_clock_may_differ_by_two_seconds(difference, expected):
    assert str(clock.judge("the database", difference).status) == expected


def test_a_clock_that_is_older_than_this_program_fails():
    assert clock.judge_here(datetime(1970, 1, 1, tzinfo=UTC)).status is Status.FAIL
    assert clock.judge_here(datetime.now(UTC)).status is Status.OK


def test_a_time_zone_that_is_none_is_a_warning(fake, subject, monkeypatch):
    monkeypatch.setenv("TZ", "Atlantis/Poseidonis")
    assert examined(subject, "clock")["clock"].status is Status.WARN


GIB, MIB = disk.GIB, disk.MIB


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (Space(50 * GIB, 0.5), "ok"),
        (Space(50 * GIB, 0.09), "warn"),
        (Space(50 * GIB, 0.01), "warn"),
        (Space(1 * GIB, 0.5), "warn"),
        (Space(1 * GIB, 0.01), "fail"),
        (Space(199 * MIB, 0.5), "fail"),
        (Space(50 * GIB, 0.5, free_inodes=10**6, inode_share=0.05), "warn"),
        (Space(50 * GIB, 0.5, free_inodes=9_000, inode_share=0.01), "fail"),
    ],
)
def test_a_disk_is_judged_by_space_and_inodes(space, expected):
    assert str(disk.judge("DATA_DIR", space).status) == expected


def test_a_file_system_is_named_once_for_all_that_lie_on_it(fake, subject, settings, tmp_path):
    settings.DATA_DIR = tmp_path
    assert examined(subject, "disk")["disk"].found.startswith("DATA_DIR, DEFAULT_MOUNT_DIR: ")


def test_few_open_files_are_a_warning_with_the_limit():
    assert limits.judge_files(1024, 4096).status is Status.WARN
    assert limits.judge_files(4096, 4096).status is Status.OK
    assert limits.judge_files(resource.RLIM_INFINITY, resource.RLIM_INFINITY).status is Status.OK


def test_little_memory_is_a_warning():
    assert limits.judge_memory(100 * MIB).status is Status.WARN
    assert limits.judge_memory(GIB).status is Status.OK


def test_a_secret_key_that_others_can_read_fails(fake, subject, settings, tmp_path):
    settings.DATA_DIR = tmp_path
    tmp_path.chmod(0o755)
    (tmp_path / "secret_key").touch()
    (tmp_path / "secret_key").chmod(0o644)
    result = seen(permissions.look, subject)
    assert result.status is Status.FAIL
    assert f"chmod 600 {tmp_path}/secret_key" in result.fixes[0]
    assert f"chmod 700 {tmp_path}" in result.fixes[1]


def test_workspaces_that_others_can_read_are_a_warning(fake, subject):
    folder = Path(subject.platform.DEFAULT_MOUNT_DIR)
    folder.mkdir()
    folder.chmod(0o755)
    result = seen(permissions.look, subject)
    assert f"DEFAULT_MOUNT_DIR '{folder}' has mode 0755" in result.found
    folder.chmod(0o700)
    assert "DEFAULT_MOUNT_DIR writable" in seen(permissions.look, subject).found


def test_a_folder_that_cannot_be_made_fails(fake, subject, tmp_path):
    (tmp_path / "file").touch()
    subject.platform.DEFAULT_MOUNT_DIR = str(tmp_path / "file" / "below")
    result = seen(permissions.look, subject)
    assert result.status is Status.FAIL
    assert "set DEFAULT_MOUNT_DIR to another folder" in result.fixes[0]


@pytest.mark.parametrize(
    ("changes", "expected", "named"),
    [
        ({}, "ok", ""),
        ({"DEBUG": True}, "warn", "DEBUG=False"),
        ({"BEARER_TOKEN": ""}, "warn", "BEARER_TOKEN"),
        ({"BEARER_TOKEN": "", "HOST": "0.0.0.0"}, "fail", "ALLOW_ANONYMOUS"),
        ({"WORKERS": 2}, "fail", "REDIS_ENABLED"),
        ({"WORKERS": 2, "REDIS_ENABLED": True}, "warn", "PostgreSQL"),
        ({"READONLY_MOUNTS": {"/nosuch": "/x"}}, "fail", "READONLY_MOUNTS"),
        ({"warnings": ["PROT in .env is not a setting."]}, "warn", "remove the line"),
    ],
)
def test_settings_that_are_not_safe_are_named(subject, changes, expected, named):
    subject.platform.__dict__.update({"DATABASE_URL": "", **changes})
    result = seen(settings_check.look, subject)
    assert str(result.status) == expected
    assert named in " ".join(result.fixes)


def test_without_redis_there_is_nothing_to_check(subject):
    result = seen(redis_server.look, subject)
    assert (result.status, result.found) == (Status.SKIP, "REDIS_ENABLED is False")

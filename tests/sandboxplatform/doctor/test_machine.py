"""The machine and its settings: clock, disk, limits, permissions."""

from __future__ import annotations

import resource
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sandboxplatform.doctor import clock, disk, limits, permissions, redis_server
from sandboxplatform.doctor import settings as settings_check
from sandboxplatform.doctor.disk import Space
from sandboxplatform.doctor.findings import Status
from tests.sandboxplatform.doctor.looking import examined, seen


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

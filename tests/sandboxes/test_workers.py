from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sandboxes import workers
from tests.processes import OtherProcess

MARK = "import os; from sandboxes import workers; print(workers.current(), flush=True); input()"


@pytest.fixture
def other():
    """A process that has said its mark and waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", MARK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    process.mark = process.stdout.readline().strip()
    yield process
    process.kill()
    process.communicate()


def test_this_process_is_not_dead():
    mark = workers.current()
    assert mark == workers.current()
    assert len(mark) <= 64
    assert not workers.is_dead(mark)


def test_a_process_is_dead_when_it_was_killed(other):
    assert other.mark != workers.current()
    assert not workers.is_dead(other.mark)
    other.kill()
    other.wait()
    assert workers.is_dead(other.mark)


def test_a_process_that_nobody_has_waited_for_is_dead(other):
    other.kill()
    # It stays as a zombie until wait(): waitid leaves it so.
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    assert workers.is_dead(other.mark)


def test_a_pid_that_is_used_again_is_another_process():
    scope, pid, began = workers.current().split(":")
    assert workers.is_dead(f"{scope}:{pid}:{int(began) - 1}")


@pytest.mark.parametrize(
    "mark", ["", "nonsense", "0123456789ab/1:1:1", "another-boot/4026531836:99999999:1"]
)
def test_of_a_process_that_cannot_be_seen_nothing_is_claimed(mark):
    assert not workers.is_dead(mark)


def test_a_forked_process_has_a_mark_of_its_own():
    inherited = workers.current()
    command = (
        "import os, sys; from sandboxes import workers; first = workers.current(); "
        "pid = os.fork(); sys.exit(workers.current() == first) if not pid else "
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0
    assert workers.current() == inherited


@pytest.mark.django_db(transaction=True)
def test_the_mark_of_another_process_on_a_row_is_told_by_any(fake):
    with OtherProcess(workers.current) as process:
        process.begin()
        mark = process.result()
    assert workers.is_dead(mark)

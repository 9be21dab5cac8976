from __future__ import annotations

import json
import threading
import time

import pytest

from tests.guest.running import SECRET, is_alive
from tests.waiting import wait_until


def test_stdout_comes_first_and_the_exit_code_last(guest):
    result = guest.shell("echo out; echo err >&2; exit 7")
    assert [item["description"] for item in result.content] == ["stdout", "stderr", "returncode"]
    assert (result.stdout, result.stderr, result.exit_code) == ("out\n", "err\n", "7")
    assert result.raw["meta"] is None
    assert result.content[0] == {
        "type": "text",
        "text": "out\n",
        "annotations": None,
        "description": "stdout",
    }


def test_stderr_is_left_out_when_empty(guest):
    result = guest.shell("true")
    assert [item["description"] for item in result.content] == ["stdout", "returncode"]


def test_the_exit_code_alone_decides_about_failure(guest):
    assert not guest.shell("echo warning >&2").failed
    assert guest.shell("exit 7").failed
    assert guest.shell("kill -9 $$").exit_code == "-9"


def test_it_runs_in_bash_in_the_workspace(guest):
    result = guest.shell("pwd; [[ $BASH_VERSION ]] && echo bash")
    assert result.stdout == f"{guest.workspace}\nbash\n"


def test_stdin_is_empty_rather_than_a_hang(guest):
    assert guest.shell("cat; echo done").stdout == "done\n"


def test_output_that_is_not_utf8_is_replaced(guest):
    assert guest.shell(r"printf 'a\377b'").stdout == "a\ufffdb"


@pytest.mark.parametrize("size", [130 * 1024, 3 * 1024 * 1024])
def test_a_command_longer_than_an_argument_may_be_runs(guest, size):
    text = "ä" * (size // 2)
    result = guest.shell(f"x='{text}'; echo ${{#x}}; cat; ls /proc/self/fd | wc -l; exit 3")
    assert result.stdout == f"{len(text)}\n4\n"
    assert result.exit_code == "3"


def test_a_command_just_below_the_limit_of_an_argument_runs(guest):
    head = "echo ok # "
    for length in (128 * 1024 - 2, 128 * 1024 - 1, 128 * 1024):
        assert guest.shell(head + "x" * (length - len(head))).stdout == "ok\n"


def test_a_command_that_takes_too_long_is_ended_with_what_it_said(guest):
    result = guest.shell("echo begun; sleep 60 & echo $!; wait", timeout=0.3)
    assert result.failed
    begun, sleeper = result.stdout.split()
    assert begun == "begun"
    assert "timed out after 0.3 s" in result.stderr
    assert result.exit_code == "-15"
    assert not is_alive(int(sleeper))


def test_a_command_that_ignores_the_polite_signal_is_killed(start_guest):
    result = start_guest().shell("trap '' TERM; sleep 60; sleep 60", timeout=0.2)
    assert result.exit_code == "-9"
    assert "timed out" in result.stderr


def test_the_time_limit_comes_from_the_callers_patience(start_guest):
    result = start_guest(NGINX_TIMEOUT="3").shell("sleep 60")
    assert "timed out after 1 s" in result.stderr


def test_a_caller_that_hangs_up_takes_the_command_along(guest):
    body = json.dumps({"command": "echo $$ >caller_left; sleep 60"}).encode()
    marker = guest.workspace / "caller_left"
    length = f"Content-Length: {len(body)}"
    path = "/fastapi/tools/run_shell_command"
    with guest.raw_request("POST", path, length) as caller:
        caller.sendall(body)
        wait_until(lambda: marker.exists() and marker.read_text().endswith("\n"))
    pid = int(marker.read_text())
    wait_until(lambda: not is_alive(pid))
    marker.unlink()


def test_endless_output_keeps_its_beginning_and_end_in_constant_memory(start_guest):
    guest = start_guest()
    before = guest.peak_memory_mb()
    result = guest.shell("echo first; yes | head -c 300000000; echo last")
    assert result.stdout.startswith("first\ny\n")
    assert result.stdout.endswith("y\nlast\n")
    assert "bytes cut here" in result.stdout
    assert len(result.stdout) < 1_100_000
    assert guest.peak_memory_mb() - before < 40


def test_both_streams_are_read_at_once(guest):
    result = guest.shell("head -c 500000 /dev/zero | tr '\\0' a >&2; echo out")
    assert len(result.stderr) == 500_000
    assert result.stdout == "out\n"


def test_a_backgrounded_child_that_keeps_stdout_open_does_not_hang_the_call(guest):
    result = guest.shell("(sleep 60; echo never) & echo $!; exit 0")
    assert not result.failed
    child = int(result.stdout)
    assert is_alive(child)
    guest.shell(f"kill -9 -- -$(ps -o pgid= -p {child} | tr -d ' ')")


def test_a_backgrounded_child_gets_no_sigpipe(guest):
    marker = guest.workspace / "survived"
    go = guest.workspace / "go"
    guest.shell(f"(until [ -e {go} ]; do sleep 0.01; done; echo x; echo x; touch {marker}) &")
    go.touch()
    wait_until(marker.exists)
    marker.unlink()
    go.unlink()


def test_sleeping_commands_do_not_stall_others(guest):
    names = guest.workspace / "stall"
    names.mkdir()
    sleeping = f"touch {names}/$$; until [ -e {names}/stop ]; do sleep 0.05; done"
    threads = [threading.Thread(target=guest.shell, args=[sleeping]) for _ in range(16)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(list(names.iterdir())) == 16)
    assert guest.shell("echo quick").stdout == "quick\n"
    (names / "stop").touch()
    for thread in threads:
        thread.join()
    guest.shell(f"rm -r {names}")


def test_many_commands_at_once_keep_their_outputs_apart(guest):
    answers = {}

    def ask(number: int) -> None:
        answers[number] = guest.shell(f"echo {number}; sleep 0.05; echo {number}").stdout

    threads = [threading.Thread(target=ask, args=[number]) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: f"{number}\n{number}\n" for number in range(24)}


def test_children_see_neither_the_secret_nor_the_guests_settings(guest):
    names = guest.shell("env -0 | cut -z -d= -f1 | tr '\\0' '\\n'").stdout.split()
    assert "SECRET_TOKEN" not in names
    assert not [name for name in names if name.startswith("GUEST_")]
    assert "PYTHONPATH" not in names
    assert "WORKSPACE_DIR" in names


def test_the_secret_is_gone_from_the_guests_own_environment(guest):
    # As root /proc is readable all the same: what is tested is that the bytes are wiped.
    seen = guest.shell(f"cat /proc/{guest.pid}/environ 2>/dev/null | tr '\\0' '\\n'").stdout
    assert SECRET not in seen


def test_no_file_of_the_guest_is_open_in_a_command(guest):
    assert guest.shell("ls /proc/self/fd").stdout.split() == ["0", "1", "2", "3"]


def test_no_zombies_are_left(guest):
    for _ in range(3):
        guest.shell("true")
    children = guest.shell(f"ps -o stat= --ppid {guest.pid}").stdout.split()
    assert not [state for state in children if state.startswith("Z")]


def test_a_workspace_full_of_shadowing_names_does_not_break_the_guest(start_guest):
    guest = start_guest()
    for name in ("json.py", "IPython.py", "asyncio.py", "starlette.py", "mcp.py", "guest.py"):
        (guest.workspace / name).write_text("raise SystemExit('shadowed')\n")
    assert guest.shell("echo ok").stdout == "ok\n"
    assert guest.cell("import json; print(json.dumps(1))").stdout == "1\n"
    started = time.monotonic()
    assert guest.end() == 0
    assert time.monotonic() - started < 5

"""What is started after a guest was bound sees its caller's environment."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from tests.guest.binding import BOUND, VALUE, bind, file
from tests.guest.running import is_alive
from tests.waiting import wait_until


@pytest.fixture
def temporary(tmp_path):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    return temporary


def test_a_command_sees_the_environment_on_top_of_the_containers(start_guest):
    guest = start_guest(COLOUR="blue", FRUIT="kiwi")
    answer = bind(guest, {"FRUIT": "fig", "KEY": VALUE, "EMPTY": "", "ODD": "a 'b' $c\nd=é"})
    assert (answer.status_code, answer.json()) == (200, BOUND)
    shown = guest.shell("echo $COLOUR $FRUIT $KEY [${EMPTY-unset}]; printenv ODD").stdout
    assert shown == f"blue fig {VALUE} []\na 'b' $c\nd=é\n"


def test_a_command_that_needs_no_shell_sees_it_whether_or_not_others_ran_before(start_guest):
    guest = start_guest(FRUIT="kiwi")
    # So often that the guest has learned to start it without a shell.
    assert {guest.shell("printenv FRUIT").stdout for _ in range(20)} == {"kiwi\n"}
    assert bind(guest, {"FRUIT": "fig"}).status_code == 200
    assert {guest.shell("printenv FRUIT").stdout for _ in range(20)} == {"fig\n"}
    shown = [sorted(guest.shell("env -0").stdout.split("\0")) for _ in range(20)]
    assert all(environment == shown[0] for environment in shown)


def test_a_setting_of_bash_counts_from_then_on(start_guest):
    guest = start_guest()
    for _ in range(20):
        guest.shell("ls")
    settings = guest.home / "settings"
    settings.write_text("echo set\n")
    assert bind(guest, {"BASH_ENV": str(settings)}).status_code == 200
    assert {guest.shell("true").stdout for _ in range(10)} == {"set\n"}


def test_a_cell_sees_it(start_guest):
    guest = start_guest()
    assert bind(guest, {"KEY": VALUE}).status_code == 200
    assert guest.cell("import os; print(os.environ['KEY'])").stdout == f"{VALUE}\n"


def test_a_kernel_that_ran_already_is_replaced_by_one_that_sees_it(start_guest):
    guest = start_guest(FRUIT="kiwi")
    before = int(guest.cell("import os; print(os.getpid())").stdout)
    assert bind(guest, {"FRUIT": "fig", "PYTHONHASHSEED": "0"}).status_code == 200
    result = guest.cell("import os, sys; print(os.environ['FRUIT'], sys.flags.hash_randomization)")
    assert (result.stdout, result.stderr, result.failed) == ("fig 0\n", None, False)
    wait_until(lambda: not is_alive(before))


def test_a_kernel_that_is_just_starting_is_replaced_too(start_guest, temporary):
    guest = start_guest(TMPDIR=str(temporary))
    assert "still starting" in guest.cell("1", timeout=0.05).content[0]["text"]
    assert bind(guest, {"KEY": VALUE}).status_code == 200
    assert guest.cell("import os; print(os.environ['KEY'])").stdout == f"{VALUE}\n"
    assert len(list(temporary.glob("kernel-*"))) == 1


def test_a_new_kernel_that_no_cell_has_asked_for_leaves_no_files(start_guest, temporary):
    guest = start_guest(TMPDIR=str(temporary))
    guest.cell("1")
    (before,) = temporary.glob("kernel-*")
    bind(guest, {"KEY": VALUE})
    # Its sockets appear when it is up.
    wait_until(lambda: not before.exists() and list(temporary.glob("kernel-*/channel-*")))
    assert guest.end() == 0
    assert list(temporary.glob("kernel-*")) == []


def test_a_kernel_stays_where_only_files_are_bound(start_guest):
    guest = start_guest()
    guest.cell("kept = 41")
    assert bind(guest, files=[file("a", b"1")]).status_code == 200
    assert guest.cell("print(kept + 1, open('a').read())").stdout == "42 1\n"


def test_a_cell_that_runs_is_not_disturbed_and_the_next_one_sees_it(start_guest):
    guest = start_guest()
    guest.cell("import os, time, pathlib")
    results = []
    code = "pathlib.Path('running').touch(); time.sleep(1); print(os.environ.get('KEY'))"
    running = threading.Thread(target=lambda: results.append(guest.cell(code)))
    running.start()
    wait_until((guest.workspace / "running").exists)
    assert bind(guest, {"KEY": VALUE}).status_code == 200
    assert guest.cell("import os; print(os.environ['KEY'])").stdout == f"{VALUE}\n"
    running.join()
    assert results[0].stdout == "None\n"


def test_git_sees_it(start_guest):
    guest = start_guest()
    settings = guest.home / "elsewhere"
    settings.mkdir()
    (settings / ".gitconfig").write_text("[core]\n\texcludesFile = ~/ignored\n")
    (settings / "ignored").write_text("*.log\n")
    for name in ("a.log", "a.txt"):
        (guest.workspace / name).write_text("x\n")
    assert bind(guest, {"HOME": str(settings)}).status_code == 200
    assert list(guest.post("watcher/generate_diff").json()["diffs"]) == ["a.txt"]


def test_home_and_path_count_as_at_the_start(start_guest, tmp_path):
    home = tmp_path / "of-the-caller"
    home.mkdir()
    bound, started = start_guest(), start_guest(HOME=str(home), PATH="/usr/bin:/bin")
    assert bind(bound, {"HOME": str(home), "PATH": "/usr/bin:/bin"}).status_code == 200
    shown = bound.shell("echo $HOME $PATH").stdout
    assert shown == started.shell("echo $HOME $PATH").stdout
    assert shown == f"{home} {home}/.local/bin:/usr/bin:/bin\n"


def test_a_home_that_cannot_be_used_is_replaced_as_at_the_start(start_guest, temporary):
    guest = start_guest(TMPDIR=str(temporary))
    assert bind(guest, {"HOME": "/nonexistent/" + "a" * 300}).status_code == 200
    assert Path(guest.shell("echo $HOME").stdout.strip()).parent == temporary


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ([VALUE], "'environment' should be an object"),
        ({"SECRET_TOKEN": VALUE}, "'environment.SECRET_TOKEN' belongs to the platform"),
        ({"NGINX_TIMEOUT": VALUE}, "'environment.NGINX_TIMEOUT' belongs to the platform"),
        ({"WORKSPACE_DIR": VALUE}, "'environment.WORKSPACE_DIR' belongs to the platform"),
        ({"GUEST_ANYTHING": VALUE}, "'environment.GUEST_ANYTHING' belongs to the platform"),
        ({"A": "a", "KEY": [VALUE]}, "'environment.KEY' should be a string"),
        ({"KEY": None}, "'environment.KEY' should be a string"),
        ({"KEY": 1}, "'environment.KEY' should be a string"),
        ({"KEY": f"{VALUE}\0"}, "'environment.KEY' holds a NUL"),
        ({"KEY": f"{VALUE}\ud800"}, "'environment.KEY' is not valid Unicode"),
        ({"KEY": VALUE * 10_000}, "'environment.KEY' is longer"),
        ({f"K{n}": VALUE * 5_000 for n in range(20)}, "'environment' is larger than 1 MiB"),
        ({"": VALUE}, "a name that no variable can have: ''"),
        ({f"KEY={VALUE}": ""}, "a name that no variable can have: 'KEY='"),
        ({"K\0": VALUE}, r"a name that no variable can have: 'K\x00'"),
        ({"K\ud800": VALUE}, r"a name that no variable can have: 'K\ud800'"),
    ],
)
def test_a_wrong_variable_is_named_without_its_value(unbound, environment, named):
    answer = unbound.http.post("/v1/bind", content=json.dumps({"environment": environment}))
    assert answer.status_code == 422
    assert named in answer.json()["detail"]
    assert VALUE not in answer.text
    assert VALUE not in unbound.log.read_text()
    assert unbound.http.post("/v1/bind", json={"env": {}}).status_code == 422


def test_the_largest_environment_that_is_taken_can_be_used(start_guest):
    guest = start_guest()
    environment = {f"K{number}": "x" * 131_000 for number in range(8)}
    assert bind(guest, environment).status_code == 200
    assert guest.shell(f"echo {'y' * 100_000} | wc -c").stdout.strip() == "100001"

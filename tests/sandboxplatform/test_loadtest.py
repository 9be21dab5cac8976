from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sandboxplatform.loadtest import names, output
from sandboxplatform.loadtest.connection import CallFailed
from sandboxplatform.loadtest.results import OURS, REFERENCE, Memory, Report, Series
from sandboxplatform.loadtest.targets import targets
from sandboxplatform.setting_table import BASE_DIR
from tests.ports import free_port
from tests.server import TOKEN, Server
from tests.waiting import wait_until

TINY = ["--creates=1", "--calls=5", "--seconds=0.3", "--clients=1,2", "--sleepers=3", "--burst=3"]
WITHOUT_POOLS = "creates,calls,sustained,sleepers,cycles,memory"


def command(environment, folder, *arguments):
    return subprocess.Popen(
        [sys.executable, str(BASE_DIR / "manage.py"), "loadtest", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process, timeout=150):
    said, complained = process.communicate(timeout=timeout)
    return process.returncode, said, complained


@pytest.fixture(scope="module")
def server():
    with tempfile.TemporaryDirectory(prefix="sbx-") as folder:
        running = Server(Path(folder), CONTAINER_DEPLOYMENT="local").start()
        yield running
        assert running.stop() == 0, running.output


@pytest.fixture
def loadtest(server):
    def start(*arguments):
        return command(server.environment(), server.folder, f"--base-url={server.url}", *arguments)

    return start


def sandboxes_of(server):
    return list((server.folder / "workspaces").glob("*"))


@pytest.mark.bubblewrap
@pytest.mark.slow
def test_a_run_fills_every_row_without_a_failure_and_leaves_nothing(server, loadtest):
    code, said, complained = finished(loadtest(*TINY, f"--only={WITHOUT_POOLS}", "--json"))
    assert code == 0, complained
    found = json.loads(said)
    rows = {row["name"]: row for row in found["rows"]}
    expected = {
        names.CREATE, names.FIRST, names.RELEASE, names.HEALTH, names.INFO, names.PROXY,
        names.SHELL, names.SHELL_ASYNC, names.SHELL_STRAIGHT, names.CELL, names.CELL_STRAIGHT,
        names.sustained(1), names.sustained(2), names.cycles(4), names.cycles(8),
        "sleep 5, 3 at once", rows[names.FIRST]["floor"],
        *(names.beside(row, 3) for row in (names.HEALTH, names.INFO, names.SHELL)),
    }  # fmt: skip
    assert set(rows) == expected
    for row in rows.values():
        assert row["ours"]["count"] > 0, row
        assert row["ours"]["failures"] == {}, row
    assert {each["name"] for each in found["memory"] if each["megabytes"]} == {
        names.IDLE_SANDBOX, names.WORKER, names.ALL_PROCESSES
    }  # fmt: skip
    assert found["notes"] == []
    wait_until(lambda: sandboxes_of(server) == [])


@pytest.mark.bubblewrap
def test_the_table_has_the_chosen_rows_and_the_targets(loadtest):
    code, said, complained = finished(loadtest(*TINY, "--only=calls", f"--token={TOKEN}"))
    assert code == 0, complained
    assert names.SHELL_STRAIGHT in said
    assert names.FIRST not in said.partition("Targets")[0]
    assert "shell true through the server minus straight, p50 ≤ 3 ms: " in said


@pytest.mark.bubblewrap
def test_without_the_servers_key_the_straight_rows_say_why(server):
    with tempfile.TemporaryDirectory(prefix="sbx-") as elsewhere:
        environment = {**server.environment(), "DATA_DIR": f"{elsewhere}/data"}
        arguments = [f"--base-url={server.url}", *TINY, "--only=calls"]
        code, said, complained = finished(command(environment, elsewhere, *arguments))
    assert code == 0, complained
    assert f"{names.SHELL_STRAIGHT}: not measured: the guest refused the secret" in said


@pytest.mark.bubblewrap
def test_a_reference_stands_beside_ours(server, loadtest):
    both = [f"--reference-url={server.url}", f"--reference-token={TOKEN}"]
    code, said, complained = finished(loadtest(*TINY, *both, "--only=calls,sustained", "--json"))
    assert code == 0, complained
    rows = {row["name"]: row for row in json.loads(said)["rows"]}
    assert rows[names.SHELL]["reference"]["count"] == 5
    assert rows[names.sustained(2)]["ours_to_reference"] > 0


@pytest.mark.bubblewrap
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_ends_it_with_nothing_left(server, loadtest, number):
    process = loadtest("--creates=50", "--calls=5")
    wait_until(lambda: sandboxes_of(server) != [])
    process.send_signal(number)
    code, said, complained = finished(process, timeout=60)
    assert code == 130, complained
    assert "Interrupted" in said
    wait_until(lambda: sandboxes_of(server) == [])


@pytest.mark.bubblewrap
def test_a_wrong_token_is_told_in_a_sentence(loadtest):
    code, said, complained = finished(loadtest("--token=wrong"))
    assert code == 1
    assert said == ""
    assert "refused the token" in complained
    assert "Traceback" not in complained


def test_a_server_that_does_not_answer_is_told_in_a_sentence(tmp_path):
    environment = Server(tmp_path).environment()
    url = f"http://127.0.0.1:{free_port()}"
    code, _, complained = finished(command(environment, tmp_path, f"--base-url={url}"))
    assert code == 1
    assert f"{url} does not answer as a sandbox server: no connection" in complained


@pytest.mark.parametrize(
    "argument", ["--base-url=ftp://x", "--only=nothing", "--clients=1,none", "--creates=0"]
)
def test_an_option_that_cannot_be_used_ends_it(tmp_path, argument):
    process = command(Server(tmp_path).environment(), tmp_path, argument)
    code, _, complained = finished(process)
    assert code == 2
    assert argument.partition("=")[2].split(",")[-1] in complained


def series(*milliseconds, **fields):
    return Series(seconds=[each / 1000 for each in milliseconds], **fields)


def test_a_row_tells_what_it_has_more_than_the_plain_one():
    report = Report()
    report.row(names.CLAIM).sides = {OURS: series(7)}
    report.row(names.PERSONAL, plain=names.CLAIM).sides = {OURS: series(9)}
    assert f"{names.PERSONAL}: p50 +2 ms against {names.CLAIM}" in output.as_text(report)
    assert output.as_json(report)["rows"][1]["minus_plain_p50_ms"] == pytest.approx(2)


def test_a_rate_is_told_for_its_row_s_unit():
    report = Report()
    report.row(names.cold_cycles(4), per="minute").sides = {OURS: series(1, 1, elapsed=4)}
    assert "30/min" in output.as_text(report)
    assert output.as_json(report)["rows"][0]["ours"]["per_minute"] == 30


def test_what_fits_in_free_memory_stands_beside_what_one_holds():
    report = Report()
    report.memory[names.IDLE_WARM] = Memory(names.IDLE_WARM, {OURS: 25.0}, {OURS: 812})
    text = output.as_text(report)
    assert "fit now" in text
    assert "812" in text
    assert output.as_json(report)["memory"][0]["fit_in_free_memory"] == {OURS: 812}


def test_a_percentile_is_a_sample():
    found = series(*range(1, 101))
    assert [round(found.milliseconds(percent)) for percent in (50, 95, 99)] == [50, 95, 99]
    assert series(7).milliseconds(99) == 7
    assert series().milliseconds(50) is None


def test_failures_are_counted_by_kind_and_shown_with_the_first_example():
    report = Report()
    row = report.row(names.RELEASE).of(OURS)
    for detail in ("first", "second"):
        row.fail(CallFailed("HTTP 503", detail))
    assert report.is_empty
    assert f"{names.RELEASE}: 2 × HTTP 503: first" in output.as_text(report)


def test_targets_compare_what_was_measured():
    report = Report(options={"clients": [1, 8], "sleepers": 64})
    report.row(names.RELEASE).of(OURS).seconds.append(0.031)
    both = report.row(names.sustained(8))
    both.sides = {OURS: series(*[1] * 40, elapsed=1), REFERENCE: series(*[1] * 10, elapsed=1)}
    report.memory[names.IDLE_SANDBOX] = Memory(names.IDLE_SANDBOX, {OURS: 44}, is_container=True)
    met = {target.promise: target.is_met for target in targets(report)}
    assert met["release, p50"] is False
    assert met["calls/s at 8 clients"] is True
    assert met[names.IDLE_SANDBOX] is True
    assert met[names.WORKER] is None
    assert "release, p50 ≤ 30 ms: 31 MISSED" in output.as_text(report)

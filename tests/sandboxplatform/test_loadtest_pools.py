from __future__ import annotations

import json
import signal
import tempfile
import threading
from pathlib import Path

import pytest

from sandboxplatform.loadtest import names
from tests.sandboxplatform.test_loadtest import TINY, command, finished, sandboxes_of
from tests.server import Server
from tests.waiting import wait_until

pytestmark = pytest.mark.bubblewrap

MAY_CHANGE_POOLS = """
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from sandboxes.tokens import BEARER_USER
user, _ = get_user_model().objects.get_or_create(username=BEARER_USER)
user.user_permissions.add(Permission.objects.get(codename="change_pool"))
"""
NO_ROUTES = f"--extension={Path(__file__).parent / 'no_pool_routes.py'}"
WARM_ROWS = (names.CLAIM, names.CLAIM_FIRST, names.PERSONAL, names.PERSONAL_FIRST)


def running(folder, *options, may_change_pools=True, **settings):
    server = Server(Path(folder), *options, CONTAINER_DEPLOYMENT="local", **settings).start()
    if may_change_pools:
        server.manage("shell", "-c", MAY_CHANGE_POOLS)
    return server


@pytest.fixture(scope="module")
def server():
    with tempfile.TemporaryDirectory(prefix="sbx-") as folder:
        server = running(folder, POOL_SIZE="2")
        yield server
        assert server.stop() == 0, server.output


@pytest.fixture
def loadtest(server):
    return lambda *arguments: start(server, *arguments)


def start(server, *arguments):
    return command(
        server.environment(), server.folder, f"--base-url={server.url}", *TINY, *arguments
    )


def found(process):
    code, said, complained = finished(process)
    assert code == 0, complained
    report = json.loads(said)
    return {row["name"]: row for row in report["rows"]}, report


def pool_of(server):
    status, body = server.get("/api/v1/pools")
    assert status == 200
    return json.loads(body)["data"][0]


def burst_rows(what):
    return {
        names.burst_claim(what), names.burst_first(what), names.burst_ready(what),
        names.burst_release(what),
    }  # fmt: skip


@pytest.mark.slow
def test_claims_bursts_and_refills_fill_every_row_without_a_failure(server, loadtest):
    rows, report = found(loadtest("--only=warm,burst,refill,density", "--json"))
    assert set(rows) == {
        *WARM_ROWS, names.RELEASE, names.REFILL,
        *burst_rows(names.burst(3)), *burst_rows(names.burst_as_it_is(3)),
    }  # fmt: skip
    for row in rows.values():
        assert row["ours"]["count"] > 0, row
        assert row["ours"]["failures"] == {}, row
    assert rows[names.CLAIM]["note"] == "from a full pool of 2"
    assert rows[names.PERSONAL]["plain"] == names.CLAIM
    assert rows[names.burst_ready(names.burst(3))]["note"] == "warm when it began: 3, 3, 3"
    assert rows[names.burst_ready(names.burst_as_it_is(3))]["note"] == "warm when it began: 2, 2, 2"
    assert rows[names.REFILL]["note"].startswith("of 2,")
    memory = {each["name"]: each for each in report["memory"]}
    assert memory[names.IDLE_WARM]["fit_in_free_memory"]["ours"] > 0
    assert report["notes"] == []
    assert pool_of(server)["target"] == 2
    wait_until(lambda: len(sandboxes_of(server)) == 2)


@pytest.mark.slow
def test_cold_creates_empty_the_pool_and_fill_it_again(server, loadtest):
    rows, report = found(loadtest("--only=creates,cold", "--json"))
    for clients in (1, 4, 8):
        row = rows[names.cold_cycles(clients)]
        assert row["note"] == ""
        assert row["ours"]["per_minute"] > 0
        assert row["ours"]["failures"] == {}
        assert rows[row["floor"]]["ours"]["per_minute"] > 0
    assert rows[names.CREATE]["note"] == ""
    assert report["notes"] == []
    assert pool_of(server)["target"] == 2


@pytest.mark.slow
def test_a_reference_takes_turns_and_need_not_tell_of_its_pool(loadtest):
    with tempfile.TemporaryDirectory(prefix="sbx-") as folder:
        other = running(folder, NO_ROUTES)
        try:
            both = [f"--reference-url={other.url}", "--reference-token=acceptance-token"]
            rows, report = found(loadtest(*both, "--only=warm,refill", "--json"))
        finally:
            assert other.stop() == 0, other.output
    for name in WARM_ROWS:
        assert rows[name]["reference"]["count"] == 1
        assert rows[name]["reference"]["failures"] == {}
    assert "reference" not in rows[names.REFILL]
    assert any("reference does not tell of its pool" in note for note in report["notes"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_pool_is_held_empty_puts_its_target_back(server, loadtest, number):
    process = loadtest("--seconds=30", "--only=cold")
    wait_until(lambda: pool_of(server)["target"] == 0)
    process.send_signal(number)
    code, _, complained = finished(process, timeout=60)
    assert code == 130, complained
    assert pool_of(server)["target"] == 2
    wait_until(lambda: pool_of(server)["warm"] == 2)
    wait_until(lambda: len(sandboxes_of(server)) == 2)


def test_a_signal_in_a_burst_loses_no_sandbox(server, loadtest):
    process = loadtest("--burst=8", "--only=burst")
    wait_until(lambda: len(sandboxes_of(server)) > 8)
    process.send_signal(signal.SIGINT)
    code, _, complained = finished(process, timeout=60)
    assert code == 130, complained
    assert pool_of(server)["target"] == 2
    wait_until(lambda: len(sandboxes_of(server)) == 2)


@pytest.mark.slow
def test_where_the_pool_may_not_be_changed_the_row_says_that_warm_ones_are_among_them():
    with tempfile.TemporaryDirectory(prefix="sbx-") as folder:
        server = running(folder, POOL_SIZE="1", may_change_pools=False)
        try:
            rows, _ = found(start(server, "--only=cold,burst", "--json"))
        finally:
            assert server.stop() == 0, server.output
    note = rows[names.cold_cycles(4)]["note"]
    assert "its target may not be changed (HTTP 403" in note
    assert note.endswith("creates as they come, warm ones among them")
    assert "warm when it began: 1, 1, 1; " in rows[names.burst_ready(names.burst(3))]["note"]


@pytest.mark.slow
def test_a_server_that_does_not_tell_of_its_pool_is_measured_as_far_as_it_can_be():
    with tempfile.TemporaryDirectory(prefix="sbx-") as folder:
        server = running(folder, NO_ROUTES, POOL_SIZE="1")
        try:
            rows, _ = found(start(server, "--only=warm,refill", "--json"))
        finally:
            assert server.stop() == 0, server.output
    assert rows[names.REFILL]["note"].startswith("not measured: the server does not tell")
    assert "does not tell of its pools (HTTP 404)" in rows[names.CLAIM]["note"]
    assert all(rows[name]["ours"]["failures"] == {} for name in WARM_ROWS)


def test_without_a_command_no_restart_is_measured(loadtest):
    rows, _ = found(loadtest("--only=restart,calls", "--json"))
    assert "--restart" in rows[names.RESTART_ALL]["note"]


def test_a_restart_command_that_fails_is_told_with_what_it_said(loadtest):
    code, said, complained = finished(
        loadtest("--restart=echo no such unit; exit 5", "--only=restart,calls")
    )
    assert code == 0, complained
    assert f"{names.RESTART_COMMAND}: 1 × the command ended with 5: no such unit" in said


@pytest.mark.slow
def test_sandboxes_answer_again_after_the_server_was_restarted():
    with tempfile.TemporaryDirectory(prefix="sbx-") as folder:
        server = running(folder, AUTO_CLEANUP="False")
        asked, done = Path(folder, "asked"), Path(folder, "done")

        def restart_when_asked():
            wait_until(asked.exists, seconds=100)
            server.stop()
            server.spawn()
            done.touch()

        thread = threading.Thread(target=restart_when_asked)
        thread.start()
        try:
            shell = f"touch {asked}; while [ ! -e {done} ]; do sleep 0.05; done"
            rows, report = found(start(server, f"--restart={shell}", "--only=restart", "--json"))
            thread.join()
            assert rows[names.RESTART_EACH]["ours"]["failures"] == {}
            assert rows[names.RESTART_EACH]["ours"]["count"] == 3
            assert rows[names.RESTART_ALL]["ours"]["count"] == 1
            assert report["notes"] == []
            wait_until(lambda: sandboxes_of(server) == [])
        finally:
            thread.join()
            assert server.stop() == 0, server.output

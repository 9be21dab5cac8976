"""How a server ends, and what the next one finds."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.acceptance.conftest import DEPLOYERS

pytestmark = pytest.mark.parametrize("deployer", DEPLOYERS)


def workspaces(server):
    return list((server.folder / "workspaces").glob("*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_auto_cleanup_removes_all_sandboxes_and_exits_0(make_server, deployer, number):
    server = make_server(CONTAINER_DEPLOYMENT=deployer).start()
    for _ in range(2):
        server.create()
    assert len(workspaces(server)) == 2
    assert server.stop(number) == 0, server.output
    assert workspaces(server) == []
    server.start()
    assert server.rpc("list_session_keys") == (200, {"data": []})
    assert server.stop() == 0


def test_requests_in_flight_are_finished(make_server, deployer):
    server = make_server(CONTAINER_DEPLOYMENT=deployer).start()
    name, answers = server.create(), []
    call = threading.Thread(
        target=lambda: answers.append(server.shell(name, "touch begun; sleep 2; echo finished"))
    )
    call.start()
    begun = Path(server.folder, "workspaces", name.rpartition("-")[2], "begun")
    while not begun.exists():
        time.sleep(0.02)
    assert server.stop() == 0
    call.join()
    assert answers == ["finished\n"]


def test_without_auto_cleanup_sandboxes_stay_and_are_adopted(make_server, deployer):
    server = make_server(CONTAINER_DEPLOYMENT=deployer, AUTO_CLEANUP="False").start()
    name = server.create(meta={"session_ctx_id": "kept"})
    server.shell(name, "echo precious > /workspace/file; echo tmp > /tmp/file")
    assert server.stop() == 0
    server.start()
    assert server.shell(name, "cat /workspace/file /tmp/file") == "precious\ntmp\n"
    assert server.rpc("get_session_mapping", session_ctx_id="kept") == (200, {"data": [name]})
    assert server.rpc("release", identity=name) == (200, {"data": True})
    assert server.stop() == 0


def test_after_kill_9_of_everything_running_sandboxes_are_usable(make_server, deployer):
    server = make_server(CONTAINER_DEPLOYMENT=deployer).start()
    name = server.create()
    server.shell(name, "echo precious > /workspace/file")
    server.kill_all()
    server.start()
    assert server.shell(name, "cat /workspace/file") == "precious\n"
    assert server.stop() == 0
    assert workspaces(server) == []


def test_a_web_worker_that_is_killed_is_replaced(make_server, deployer):
    server = make_server(CONTAINER_DEPLOYMENT=deployer).start()
    name = server.create()
    web = children(server.process.pid)[0]
    (worker,) = children(web)
    os.kill(worker, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if server.shell(name, "echo again") == "again\n":
                break
        except OSError:
            time.sleep(0.05)
    assert server.shell(name, "echo again") == "again\n"
    assert server.stop() == 0


def children(pid):
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_request_that_takes_longer_is_cut_off_and_the_server_still_exits_0(make_server, deployer):
    server = make_server(CONTAINER_DEPLOYMENT=deployer, SHUTDOWN_TIMEOUT="1").start()
    name, answers = server.create(), []
    fields = {
        "identity": name,
        "tool_name": "run_shell_command",
        "arguments": {"command": "touch begun; sleep 300"},
    }
    thread = threading.Thread(target=lambda: answers.append(server.rpc("call_tool", **fields)))
    thread.start()
    begun = Path(server.folder, "workspaces", name.rpartition("-")[2], "begun")
    while not begun.exists():
        time.sleep(0.02)
    assert server.stop(timeout=60) == 0, server.output
    thread.join()
    ((status, answer),) = answers
    assert (status, answer["detail"]) == (503, "The server is closing; ask again later.")
    assert workspaces(server) == []

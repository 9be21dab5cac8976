"""Pools and sessions of a real server, on each deployer."""

from __future__ import annotations

import base64
import json
import time

import pytest

from tests.acceptance.conftest import DEPLOYERS
from tests.server import TOKEN

on_each_deployer = pytest.mark.parametrize("deployer", DEPLOYERS)


def until(ask, seconds=60):
    """Return ask()'s answer as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)
    return answer


def api(server, method, path, **body):
    status, _, answer = server.request(
        method,
        f"/api/v1/{path}",
        json.dumps(body) if method != "GET" else None,
        headers={"Content-Type": "application/json"},
    )
    assert status < 300, answer
    return json.loads(answer)["data"]


def warm(server):
    return api(server, "GET", "pools/base")["warm"]


def timeline_of(server, name):
    return api(server, "GET", f"sandboxes/{name}")["timeline"]


@on_each_deployer
def test_a_warm_sandbox_is_lent_with_all_that_the_request_brings(make_server, deployer):
    server = make_server(CONTAINER_DEPLOYMENT=deployer, POOL_SIZE="2").start()
    until(lambda: warm(server) == 2)
    content = base64.b64encode(b"from the request").decode()
    [lent] = api(
        server,
        "POST",
        "sandboxes",
        environment={"KEY": "secret value"},
        files=[{"path": "in/a.txt", "content": content}],
        session_ctx_id="s",
    )
    name = lent["container_name"]
    assert lent["timeline"]["kind"] == "warm"
    assert server.shell(name, "echo $KEY; cat in/a.txt") == "secret value\nfrom the request"
    cell = {"code": "import os; print(os.environ['KEY'])"}
    _, answer = server.rpc("call_tool", identity=name, tool_name="run_ipython_cell", arguments=cell)
    assert answer["data"]["content"][0]["text"] == "secret value\n"
    phases = [phase for phase, _ in timeline_of(server, name)["phases"]]
    assert phases[-3:] == ["claimed", "bound", "first call"]
    assert server.rpc("get_session_mapping", session_ctx_id="s")[1] == {"data": [name]}
    for verb in ("stop", "start"):
        assert server.rpc(verb, identity=name) == (200, {"data": True})
    assert server.shell(name, "echo $KEY; cat in/a.txt") == "secret value\nfrom the request"
    until(lambda: warm(server) == 2)
    assert "secret value" not in server.output
    assert server.stop() == 0


@on_each_deployer
def test_the_sdk_is_lent_a_warm_one(make_server, deployer):
    sdk = pytest.importorskip("agentscope_runtime.sandbox")
    server = make_server(CONTAINER_DEPLOYMENT=deployer, POOL_SIZE="1").start()
    until(lambda: warm(server) == 1)
    with sdk.BaseSandbox(base_url=server.url, bearer_token=TOKEN) as sandbox:
        assert "hello" in str(sandbox.run_shell_command(command="echo hello"))
        [lent] = api(server, "GET", "sandboxes?state=running")
        assert lent["timeline"]["kind"] == "warm"
    assert server.stop() == 0


@on_each_deployer
def test_an_idle_session_is_recycled_and_restored_with_its_files(make_server, deployer):
    server = make_server(CONTAINER_DEPLOYMENT=deployer, HEARTBEAT_TIMEOUT="1").start()
    alone = server.create()
    name = server.create(meta={"session_ctx_id": "s"})
    server.shell(name, "echo kept >notes.txt")

    def current():
        """The record that serves the session's callers: on a slow machine it is restored early."""
        record = server.rpc("get_info", identity=name)[1]["data"]
        if record["redirect_to"]:
            record = server.rpc("get_info", identity=record["redirect_to"])[1]["data"]
        return record

    until(lambda: current()["state"] == "recycled")
    recycled = current()["container_name"]
    # A call that takes longer than the timeout is no idleness.
    assert server.shell(name, "sleep 3; cat notes.txt") == "kept\n"
    assert server.rpc("get_info", identity=recycled)[1]["data"]["state"] == "replaced"
    [mapped] = server.rpc("get_session_mapping", session_ctx_id="s")[1]["data"]
    assert mapped == current()["container_name"] != recycled
    # A sandbox without a session is not recycled.
    assert server.shell(alone, "echo here") == "here\n"
    assert server.rpc("release", identity=name) == (200, {"data": True})
    assert server.rpc("get_session_mapping", session_ctx_id="s")[1] == {"data": []}
    assert server.stop() == 0
    assert not list((server.folder / "workspaces").glob("*"))


@on_each_deployer
def test_after_a_kill_everything_is_adopted_and_the_pool_is_full_again(make_server, deployer):
    server = make_server(CONTAINER_DEPLOYMENT=deployer, POOL_SIZE="2", AUTO_CLEANUP="False").start()
    until(lambda: warm(server) == 2)
    name = server.create()
    server.shell(name, "echo kept >notes.txt")
    server.kill_all()
    server.start()
    assert server.shell(name, "cat notes.txt") == "kept\n"
    until(lambda: warm(server) == 2 and not api(server, "GET", "pools/base")["coming"])
    server.settings["AUTO_CLEANUP"] = "True"
    assert server.stop() == 0


@on_each_deployer
def test_a_warm_one_that_was_killed_is_not_lent(make_server, deployer):
    server = make_server(CONTAINER_DEPLOYMENT=deployer, POOL_SIZE="1").start()
    until(lambda: warm(server) == 1)
    name = server.create()
    assert server.shell(name, "echo here") == "here\n"
    call = {"tool_name": "run_shell_command", "arguments": {"command": "kill -9 -1"}}
    server.rpc("call_tool", identity=name, **call)
    until(lambda: server.rpc("get_info", identity=name)[1]["data"]["state"] == "error")
    assert server.rpc("call_tool", identity=name, **call)[0] == 410
    assert server.stop() == 0

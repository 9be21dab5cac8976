"""Every error has a status of its own and a detail that a person can act on."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest


@pytest.mark.parametrize(
    "name", ["get_info", "get_status", "start", "stop", "check_health", "list_tools"]
)
def test_an_unknown_sandbox_is_a_404(server, name):
    status, answer = server.rpc(name, identity="nobody")
    assert (status, answer["detail"]) == (404, "There is no sandbox 'nobody'.")


def test_releasing_what_is_unknown_is_true(server):
    assert server.rpc("release", identity="nobody") == (200, {"data": True})


def test_positional_arguments_of_the_async_classes_are_understood(server, sandbox):
    assert server.rpc("get_status_async", args=sandbox) == (200, {"data": "running"})
    status, answer = server.rpc("get_info_async", args=sandbox)
    assert (status, answer["data"]["container_name"]) == (200, sandbox)


def test_a_released_sandbox_is_refused_at_once(server):
    name = server.create()
    server.shell(name, "true")
    server.rpc("release", identity=name)
    begun = time.monotonic()
    status, answer = server.rpc(
        "call_tool", identity=name, tool_name="run_shell_command", arguments={"command": "true"}
    )
    assert (status, answer["detail"]) == (410, f"Sandbox {name} has ended (released)")
    assert server.get(f"/proxy/{name}/workspace/list?path=.")[0] == 410
    # The reference takes 60 s here; the margin is for a busy machine.
    assert time.monotonic() - begun < 20


def test_a_tool_that_fails_is_a_result_that_names_it(server, sandbox):
    for fields, expected in [
        ({"tool_name": "no_such_tool"}, "no_such_tool"),
        ({"tool_name": "run_shell_command", "arguments": {}}, "command"),
        ({"tool_name": "run_shell_command", "arguments": {"cmd": "x", "command": "y"}}, "cmd"),
        ({"tool_name": "run_ipython_cell", "arguments": {"code": 3}}, "code"),
    ]:
        status, answer = server.rpc("call_tool", identity=sandbox, **fields)
        assert status == 200
        assert answer["data"]["isError"] is True
        text = answer["data"]["content"][0]["text"]
        assert fields["tool_name"] in text
        assert expected in text
        assert "http://" not in text


def test_a_sandbox_that_died_is_told_from_a_slow_one(server):
    name = server.create()
    status, answer = server.rpc(
        "call_tool",
        identity=name,
        tool_name="run_shell_command",
        # The guest dies, and leaves a process behind that must not keep the sandbox up.
        arguments={"command": "sleep 1000 & kill -9 $PPID"},
    )
    assert status in (200, 410, 502), answer
    for _ in range(100):
        status, answer = server.rpc(
            "call_tool", identity=name, tool_name="run_shell_command", arguments={"command": "true"}
        )
        if status == 410:
            break
        time.sleep(0.05)
    assert status == 410, answer
    assert f"Sandbox {name} has ended (lost)" in answer["detail"]
    status, answer = server.rpc("get_info", identity=name)
    assert answer["data"]["state"] == "error"


def test_a_type_that_needs_an_image_is_refused_where_there_are_none(server):
    if server.settings["CONTAINER_DEPLOYMENT"] != "local":
        pytest.skip("this deployer has images")
    status, answer = server.rpc("create_from_pool", sandbox_type="browser")
    assert status == 422
    assert "needs an image" in answer["detail"]


def test_slow_calls_do_not_stall_others(server, sandbox):
    with ThreadPoolExecutor(16) as pool:
        slow = [pool.submit(server.shell, sandbox, "sleep 3; echo slow") for _ in range(16)]
        time.sleep(0.5)
        for _ in range(10):
            assert server.shell(sandbox, "echo quick") == "quick\n"
        assert not any(call.done() for call in slow)
        assert {call.result() for call in slow} == {"slow\n"}

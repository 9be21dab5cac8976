"""Every error has a status of its own and a detail that a person can act on."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

JSON = {"Content-Type": "application/json"}
ROUTES = (
    "create_from_pool",
    "create",
    "release",
    "start",
    "stop",
    "get_status",
    "get_info",
    "check_health",
    "list_tools",
    "call_tool",
    "add_mcp_servers",
    "get_session_mapping",
    "list_session_keys",
    "cleanup",
)
BOTH = [f"{name}{suffix}" for name in ROUTES for suffix in ("", "_async")]


@pytest.mark.parametrize("name", BOTH)
def test_a_wrong_or_missing_token_is_a_401_with_a_challenge(server, name):
    for token in ("", "wrong"):
        status, headers, body = server.request("POST", f"/{name}", b"{}", token=token, headers=JSON)
        assert status == 401
        assert headers["WWW-Authenticate"] == "Bearer"
        assert "oken" in json.loads(body)["detail"]


def test_the_scheme_is_read_in_any_case(server):
    header = {"Authorization": f"bearer {server.settings['BEARER_TOKEN']}", **JSON}
    assert server.request("POST", "/list_session_keys", b"{}", token="", headers=header)[0] == 200


@pytest.mark.parametrize("name", BOTH)
def test_bad_json_is_a_400(server, name):
    status, _, body = server.request("POST", f"/{name}", b"{broken", headers=JSON)
    assert status == 400
    assert "JSON parse error" in json.loads(body)["detail"]


@pytest.mark.parametrize("name", BOTH)
def test_a_body_that_is_no_object_is_refused(server, name):
    status, _, body = server.request("POST", f"/{name}", b"[1]", headers=JSON)
    assert (status, isinstance(json.loads(body)["detail"], str)) == (422, True)


@pytest.mark.parametrize("name", BOTH)
def test_an_unknown_field_is_refused_by_name(server, name):
    status, answer = server.rpc(name, colour="red")
    assert status == 422
    assert "colour: There is no such field" in answer["detail"]


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("get_info", {}, "identity: This field is required."),
        ("get_info", {"identity": 3}, "identity: Not a valid string."),
        ("get_info", {"identity": ""}, "identity: This field may not be blank."),
        ("call_tool", {"identity": "x"}, "tool_name: This field is required."),
        ("call_tool", {"identity": "x", "tool_name": "t", "arguments": [1]}, "arguments: "),
        ("create_from_pool", {"sandbox_type": 1}, "sandbox_type: Not a valid string."),
        ("create_from_pool", {"sandbox_type": "boat"}, "sandbox_type: There is no sandbox type"),
        ("create_from_pool", {"meta": {"session_ctx_id": 4}}, "meta.session_ctx_id: Not a valid"),
        ("create", {"environment": {"A": None}}, "environment.A: This field may not be null."),
        ("create", {"environment": {"SECRET_TOKEN": "x"}}, "environment: SECRET_TOKEN belongs"),
        ("create", {"mount_dir": "/etc"}, "mount_dir: "),
        ("create", {"storage_path": "/etc"}, "storage_path: "),
        ("add_mcp_servers", {"identity": "x", "server_configs": {}}, "server_configs: "),
        (
            "add_mcp_servers",
            {"identity": "x", "server_configs": {"mcpServers": {"a": {}}}},
            "server_configs.mcpServers.a: ",
        ),
        ("list_tools", {"identity": "x", "tool_type": 4}, "tool_type: Not a valid string."),
    ],
)
def test_a_wrong_field_is_a_422_that_names_it(server, name, fields, expected):
    for suffix in ("", "_async"):
        status, answer = server.rpc(name + suffix, **fields)
        assert (status, expected in answer["detail"]) == (422, True), answer


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


def test_an_unknown_path_and_a_wrong_method_have_a_detail(server):
    status, _, body = server.request("GET", "/nowhere")
    assert (status, "/nowhere" in json.loads(body)["detail"]) == (404, True)
    status, _, body = server.request("GET", "/call_tool")
    assert (status, "GET" in json.loads(body)["detail"]) == (405, True)


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


def test_a_body_that_is_not_declared_as_json_is_a_415(server):
    for headers in ({}, {"Content-Type": "text/plain"}):
        status, _, body = server.request("POST", "/cleanup", b"", headers=headers)
        assert (status, "application/json" in json.loads(body)["detail"]) == (415, True)


def test_a_token_is_checked_before_the_body_is_read(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw:
        raw.sendall(
            b"POST /create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 50000000\r\n\r\n{"
        )
        assert raw.recv(1000).startswith(b"HTTP/1.1 401")


def test_a_body_that_is_too_large_is_a_413(server):
    status, _, body = server.request("POST", "/health", b"x" * 100_000)
    assert (status, "larger than" in json.loads(body)["detail"]) == (413, True)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000,
        b'{"meta": {"session_ctx_id": "\\ud800"}}',
        b'{"meta": {"a": "\\u0000"}}',
        b'{"sandbox_type": "\\ud800"}',
    ],
    ids=["nested", "half a pair", "NUL", "half a pair as type"],
)
def test_json_that_no_database_can_hold_is_refused(server, body):
    status, _, answer = server.request("POST", "/create_from_pool", body, headers=JSON)
    assert (status in (400, 422), isinstance(json.loads(answer)["detail"], str)) == (True, True)


@pytest.mark.parametrize("name", ["", "A=B", "1A", "GUEST_PORT", "NGINX_TIMEOUT"])
def test_a_name_that_no_environment_can_have_is_refused(server, name):
    status, answer = server.rpc("create", environment={name: "x"})
    assert (status, answer["detail"].startswith("environment: ")) == (422, True), answer


def test_starts_and_stops_at_once_never_fail_with_a_500(server, sandbox):
    with ThreadPoolExecutor(8) as pool:
        verbs = ["stop", "start"] * 8
        statuses = set(pool.map(lambda verb: server.rpc(verb, identity=sandbox)[0], verbs))
    assert statuses <= {200, 409}
    for _ in range(100):
        if server.rpc("start", identity=sandbox)[0] == 200:
            break
        time.sleep(0.05)
    assert server.shell(sandbox, "echo alive") == "alive\n"


def test_a_stop_in_the_middle_of_calls_keeps_the_files(server, sandbox):
    server.shell(sandbox, "echo precious > file")
    stopping = threading.Event()

    def call_on():
        while not stopping.is_set():
            server.rpc(
                "call_tool",
                identity=sandbox,
                tool_name="run_shell_command",
                arguments={"command": "sleep 0.05"},
            )

    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(call_on) for _ in range(4)]
        for _ in range(3):
            time.sleep(0.2)
            assert server.rpc("stop", identity=sandbox) == (200, {"data": True})
            assert server.rpc("start", identity=sandbox) == (200, {"data": True})
        stopping.set()
        for each in calls:
            each.result()
    assert server.shell(sandbox, "cat file") == "precious\n"

"""A request that cannot be meant is refused with a status of its own and what is wrong."""

from __future__ import annotations

import json
import socket

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


def test_an_unknown_path_and_a_wrong_method_have_a_detail(server):
    status, _, body = server.request("GET", "/nowhere")
    assert (status, "/nowhere" in json.loads(body)["detail"]) == (404, True)
    status, _, body = server.request("GET", "/call_tool")
    assert (status, "GET" in json.loads(body)["detail"]) == (405, True)


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

"""What reaches the log, and what must not."""

from __future__ import annotations

import json

import pytest

from tests.server import TOKEN

pytestmark = pytest.mark.bubblewrap


def test_lines_are_structured_and_hold_no_secret_and_no_body(make_server):
    server = make_server(CONTAINER_DEPLOYMENT="local", LOG_FORMAT="json", LOG_LEVEL="DEBUG")
    server.start()
    name = server.rpc("create", environment={"API_KEY": "hunter2-environment"})[1]["data"]
    assert server.shell(name, "echo $API_KEY hunter2-command") == (
        "hunter2-environment hunter2-command\n"
    )
    server.request("PUT", f"/proxy/{name}/workspace/file?path=f", b"hunter2-upload")
    server.rpc("call_tool", identity=name, tool_name="x", arguments={"p": "hunter2-argument"})
    server.request("POST", "/create", b'{"environment": "hunter2-broken', token="hunter2-token")
    server.rpc("create", environment={"SECRET_TOKEN": "hunter2-refused"})
    status, headers, _ = server.request("GET", "/nowhere", headers={"X-Request-Id": "my-id.7"})
    assert (status, headers["X-Request-Id"]) == (404, "my-id.7")
    server.rpc("release", identity=name)
    server.stop()
    assert "hunter2" not in server.output
    assert TOKEN not in server.output
    lines = [json.loads(line) for line in server.output.splitlines() if line.startswith("{")]
    assert {"time", "level", "logger", "message"} <= set(lines[0])
    requests = [line for line in lines if line["logger"] == "sandboxplatform.request"]
    assert all(line["request"] for line in requests)
    assert any(line["request"] == "my-id.7" and line["status"] == 404 for line in requests)
    tool_calls = [line for line in requests if "/call_tool" in line["message"]]
    assert tool_calls
    assert all(line["sandbox"] == name and line["milliseconds"] > 0 for line in tool_calls)
    (started,) = [line for line in lines if line["message"].startswith(f"Started {name}")]
    assert started["request"]

"""The published package's own client, straight to a guest."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.guest.mcp_calls import STDIO
from tests.guest.running import SANDBOXES, SECRET
from tests.ports import free_port

pytestmark = [pytest.mark.sdk, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    from agentscope_runtime.sandbox.client import SandboxHttpClient

    workspace = tmp_path_factory.mktemp("workspace")
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path_factory.mktemp("home")),
        "PYTHONPATH": str(SANDBOXES),
        "SECRET_TOKEN": SECRET,
        "WORKSPACE_DIR": str(workspace),
        "GUEST_PORT": str(port),
    }
    guest = subprocess.Popen([sys.executable, "-P", "-m", "guest"], env=environment)
    model = SimpleNamespace(
        url=f"http://localhost:{port}", runtime_token=SECRET, container_id="abc", timeout=30
    )
    try:
        with SandboxHttpClient(model) as client:
            yield client
            client.session.close()
    finally:
        guest.terminate()
        guest.wait(timeout=10)


def test_tools_run(sandbox):
    assert sandbox.check_health()
    shell = sandbox.call_tool("run_shell_command", {"command": "echo hi"})
    assert shell["content"][0]["text"] == "hi\n"
    assert shell["content"][-1] == {
        "type": "text",
        "text": "0",
        "annotations": None,
        "description": "returncode",
    }
    cell = sandbox.call_tool("run_ipython_cell", {"code": "1 + 1"})
    assert cell["content"][0]["text"] == "Out[1]: 2\n"
    assert not cell["isError"]


def test_files_go_both_ways(sandbox, tmp_path):
    assert sandbox.workspace_write("a/b.txt", "text")["type"] == "file"
    assert sandbox.workspace_read("a/b.txt") == "text"
    many = [{"path": "m/1", "data": "1"}, {"path": "m/2", "data": b"\xff"}]
    assert [entry["name"] for entry in sandbox.workspace_write_many(many)] == ["1", "2"]
    assert sandbox.workspace_read("m/2", fmt="bytes") == b"\xff"
    assert b"".join(sandbox.workspace_read("m/2", fmt="stream")) == b"\xff"
    assert {entry["name"] for entry in sandbox.workspace_list("m", depth=None)} == {"1", "2"}
    assert sandbox.workspace_exists("m/1")
    assert sandbox.workspace_move("m/1", "n/1")["name"] == "1"
    assert sandbox.workspace_mkdir("new")
    sandbox.workspace_remove("m")
    assert not sandbox.workspace_exists("m")
    local = tmp_path / "local"
    local.write_bytes(b"streamed")
    assert sandbox.workspace_write_from_path("streamed", str(local))["size"] == 8


def test_the_history_is_kept(sandbox):
    sandbox.workspace_write("history", "1\n")
    assert "history" in sandbox.generate_diff()["diffs"]
    commit = sandbox.commit_changes("first")["commit"]
    assert sandbox.git_logs()["logs"][0]["commit"] == commit


def test_mcp_servers_can_be_added_listed_and_called(sandbox):
    assert sandbox.add_mcp_servers({"mcpServers": {"tools": STDIO}}) == "OK"
    listed = sandbox.list_tools()
    assert set(listed) == {"generic", "tools"}
    assert sandbox.call_tool("add", {"a": 1, "b": 2})["structuredContent"] == {"result": 3}

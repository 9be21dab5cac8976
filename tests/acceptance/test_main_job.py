"""The main job: the published SDK, unchanged, against a server started as a user would."""

from __future__ import annotations

import asyncio

import pytest

from tests.server import PREFIX, TOKEN

pytestmark = [
    pytest.mark.sdk,
    # The SDK's own warnings: deprecated calls, clients it never closes.
    pytest.mark.filterwarnings("ignore"),
]


ADDER = """
import json, sys

TOOL = {
    "name": "add",
    "description": "Add two numbers.",
    "inputSchema": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
    },
}
for line in sys.stdin:
    request = json.loads(line)
    if request["method"] == "initialize":
        result = {
            "protocolVersion": request["params"]["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "adder", "version": "1"},
        }
    elif request["method"] == "tools/list":
        result = {"tools": [TOOL]}
    elif request["method"] == "tools/call":
        arguments = request["params"]["arguments"]
        result = {"content": [{"type": "text", "text": str(arguments["a"] + arguments["b"])}]}
    else:
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}), flush=True)
"""
"""An MCP server over stdio that needs nothing but Python: images carry no mcp for users."""


def open_sandbox(server, cls_name="BaseSandbox", **options):
    import agentscope_runtime.sandbox as sdk

    return getattr(sdk, cls_name)(base_url=server.url, bearer_token=TOKEN, **options)


def texts(result):
    return {item["description"]: item["text"] for item in result["content"]}


def test_the_snippet_of_the_sdks_documentation_works(server):
    with open_sandbox(server) as sandbox:
        result = sandbox.run_shell_command(command="echo 'Hello from remote!'")
    assert texts(result) == {"stdout": "Hello from remote!\n", "returncode": "0"}
    assert result["isError"] is False


def test_leaving_the_block_releases_the_sandbox(server):
    with open_sandbox(server) as sandbox:
        name = sandbox.sandbox_id
    status, answer = server.rpc("get_info", identity=name)
    assert (status, answer["data"]["state"]) == (200, "released")
    assert server.rpc("get_status", identity=name) == (200, {"data": None})


def test_cells_keep_their_state(server):
    with open_sandbox(server) as sandbox:
        sandbox.run_ipython_cell("x = 20")
        result = sandbox.run_ipython_cell("print('hi')\nx + 1")
    assert texts(result)["stdout"] == "hi\nOut[2]: 21\n"


def test_a_failed_command_and_a_traceback_are_errors(server):
    with open_sandbox(server) as sandbox:
        shell = sandbox.run_shell_command("echo oops >&2; exit 7")
        warning = sandbox.run_shell_command("echo careful >&2")
        cell = sandbox.run_ipython_cell("1/0")
    assert shell["isError"] is True
    assert texts(shell) == {"stdout": "", "stderr": "oops\n", "returncode": "7"}
    assert warning["isError"] is False
    assert cell["isError"] is True
    assert "ZeroDivisionError" in texts(cell)["stdout"]


def test_the_async_classes_work_too(server):
    async def run():
        sandbox = open_sandbox(server, "BaseSandboxAsync")
        async with sandbox:
            results = (
                await sandbox.run_shell_command("echo async"),
                await sandbox.run_ipython_cell("2 * 21"),
                await sandbox.list_tools_async(),
                await sandbox.get_info_async(),
                await sandbox.manager_api.get_status_async(sandbox.sandbox_id),
                await sandbox.manager_api.check_health_async(sandbox.sandbox_id),
                await sandbox.fs.write_async("note.txt", "from async"),
                await sandbox.fs.read_async("note.txt"),
            )
        await sandbox.manager_api.httpx_client.aclose()
        return results

    shell, cell, tools, info, status, healthy, entry, read = asyncio.run(run())
    assert texts(shell)["stdout"] == "async\n"
    assert texts(cell)["stdout"] == "Out[1]: 42\n"
    assert set(tools["generic"]) == {"run_ipython_cell", "run_shell_command"}
    assert info["sandbox_type"] == "base"
    assert (status, healthy) == ("running", True)
    assert entry["path"] == "/workspace/note.txt"
    assert read == "from async"


def test_the_record_has_every_field_of_the_wire(server):
    with open_sandbox(server) as sandbox:
        info = sandbox.get_info()
    assert set(info) == {
        "session_id",
        "container_id",
        "container_name",
        "url",
        "ports",
        "mount_dir",
        "storage_path",
        "runtime_token",
        "version",
        "meta",
        "timeout",
        "sandbox_type",
        "state",
        "session_ctx_id",
        "last_active_at",
        "recycled_at",
        "released_at",
        "updated_at",
        "recycle_reason",
        "redirect_to",
    }
    assert info["container_name"] == PREFIX + info["session_id"]
    assert len(info["session_id"]) == 25
    assert info["state"] == "running"
    assert info["session_ctx_id"] == info["meta"]["session_ctx_id"]

    from agentscope_runtime.sandbox.model import ContainerModel

    assert ContainerModel(**info).state.value == "running"


def test_the_file_facade_works_whole(server, tmp_path):
    local = tmp_path / "local.bin"
    local.write_bytes(bytes(range(256)) * 1000)
    with open_sandbox(server) as sandbox:
        fs = sandbox.fs
        entry = fs.write("a/b.txt", "text")
        assert (entry["path"], entry["type"], entry["size"]) == ("/workspace/a/b.txt", "file", 4)
        assert fs.read("a/b.txt") == "text"
        fs.write_from_path("local.bin", str(local))
        assert fs.read("local.bin", fmt="bytes") == local.read_bytes()
        assert b"".join(fs.read("local.bin", fmt="stream")) == local.read_bytes()
        many = [{"path": "m/1", "data": "one"}, {"path": "m/2", "data": b"two"}]
        assert [entry["name"] for entry in fs.write_many(many)] == ["1", "2"]
        assert fs.mkdir("folder") is True
        assert fs.mkdir("folder") is False
        assert fs.move("m/1", "folder/moved")["path"] == "/workspace/folder/moved"
        names = {entry["path"] for entry in fs.list(".", depth=2)}
        assert {"/workspace/m/2", "/workspace/folder/moved"} <= names
        assert fs.exists("folder/moved") is True
        fs.remove("folder")
        assert fs.exists("folder") is False
        fs.remove("folder")
        assert "two" in str(sandbox.run_shell_command("cat m/2"))


def test_mcp_servers_can_be_added_and_called(server):
    with open_sandbox(server) as sandbox:
        sandbox.fs.write("adder.py", ADDER)
        config = {"mcpServers": {"adder": {"command": "python3", "args": ["adder.py"]}}}
        assert sandbox.add_mcp_servers(config) == "OK"
        tools = sandbox.list_tools("adder")
        result = sandbox.call_tool("add", {"a": 2, "b": 40})
        broken = {"mcpServers": {"broken": {"command": "no-such-program"}}}
        error = sandbox.add_mcp_servers(broken)
    assert tools["adder"]["add"]["json_schema"]["function"]["parameters"]["required"] == ["a", "b"]
    assert result["isError"] is False
    assert result["content"][0]["text"] == "42"
    assert "broken" in error
    assert "no-such-program" in error


def test_attaching_by_id_without_prefix_works(server, sandbox):
    with open_sandbox(server, sandbox_id=sandbox.removeprefix(PREFIX)) as attached:
        assert texts(attached.run_shell_command("echo here"))["stdout"] == "here\n"


def test_the_sdk_reads_an_error_answer_as_a_string_with_the_detail(server):
    from agentscope_runtime.sandbox.manager import SandboxManager

    manager = SandboxManager(base_url=server.url, bearer_token=TOKEN)
    answer = manager.call_tool("nosuchsandbox", "run_shell_command", {"command": "true"})
    manager.http_session.close()
    assert answer.startswith("Error: HTTP 404")
    assert "Server Detail: There is no sandbox 'nosuchsandbox'." in answer

"""The tools of MCP servers: how they are listed and called."""

from __future__ import annotations

import threading

import pytest

from tests.guest.mcp_calls import STDIO, add, tools
from tests.guest.running import RunningGuest


@pytest.fixture(scope="module")
def with_tools(tmp_path_factory):
    """A guest with one server called tools, for tests that leave it as it is."""
    with RunningGuest(tmp_path_factory.mktemp("mcp")) as guest:
        answer = add(guest, tools=STDIO)
        assert (answer.status_code, answer.text) == (200, "OK")
        yield guest


def test_tools_are_listed_in_the_shape_of_the_wire(with_tools):
    listed = tools(with_tools)["tools"]["add"]
    assert listed["name"] == "add"
    function = listed["json_schema"]["function"]
    assert listed["json_schema"]["type"] == "function"
    assert (function["name"], function["description"]) == ("add", "Add two numbers.")
    assert function["parameters"]["type"] == "object"
    assert function["parameters"]["required"] == ["a"]
    assert function["parameters"]["properties"]["a"]["type"] == "integer"


def test_what_a_schema_refers_to_is_listed_with_it(with_tools):
    parameters = tools(with_tools)["tools"]["move"]["json_schema"]["function"]["parameters"]
    assert parameters["properties"]["point"] == {"$ref": "#/$defs/Point"}
    assert parameters["$defs"]["Point"]["required"] == ["x", "y"]


def test_a_result_is_passed_on_complete(with_tools):
    raw = with_tools.call_tool("everything").raw
    assert set(raw) == {"meta", "content", "structuredContent", "isError"}
    assert [item["type"] for item in raw["content"]] == ["text", "image", "resource"]
    assert raw["content"][1]["mimeType"] == "image/png"
    assert raw["content"][2]["resource"]["text"] == "resource"
    assert raw["structuredContent"] == {"answer": 42}
    assert not raw["isError"]


def test_a_tool_that_fails_is_a_result_with_its_reason(with_tools):
    result = with_tools.call_tool("fail")
    assert result.failed
    assert "the tool's own reason" in result.content[0]["text"]
    assert with_tools.call_tool("add", a="x").failed


def test_an_unknown_tool_is_named_with_the_servers_there_are(with_tools):
    answer = with_tools.post("mcp/call_tool", tool_name="nothing", arguments={})
    assert answer.status_code == 404
    assert "'nothing'" in answer.json()["detail"]
    assert "tools (10)" in answer.json()["detail"]


def test_without_servers_nothing_is_listed(start_guest):
    guest = start_guest()
    assert tools(guest) == {}
    answer = guest.post("mcp/call_tool", tool_name="add")
    assert answer.status_code == 404
    assert "no MCP server" in answer.json()["detail"]


def test_a_server_runs_in_the_workspace_without_the_secret(with_tools):
    environment = with_tools.call_tool("environment").raw["structuredContent"]
    assert "SECRET_TOKEN" not in environment
    assert not [name for name in environment if name.startswith("GUEST_")]
    _, directory = with_tools.call_tool("place").content[0]["text"].split()
    assert directory == str(with_tools.workspace)


def test_a_call_that_takes_too_long_is_a_result_that_says_so(start_guest, http_server):
    # One that is up already: the limit of a call is that of a start, too.
    url, _ = http_server("streamable-http")
    guest = start_guest(NGINX_TIMEOUT="8")
    assert add(guest, tools={"type": "streamable_http", "url": f"{url}/mcp"}).text == "OK"
    result = guest.call_tool("sleep", seconds=60)
    assert result.failed
    assert "sleep (MCP server tools): timed out after 3 s" in result.content[0]["text"]


def test_calls_of_several_callers_run_at_once(with_tools):
    texts = []

    def call(number):
        texts.append(with_tools.call_tool("add", a=number).content[0]["text"])

    threads = [threading.Thread(target=call, args=[number]) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(texts, key=int) == [str(number + 1) for number in range(10)]


def test_what_a_server_prints_beside_the_protocol_does_no_harm(with_tools):
    assert with_tools.call_tool("shout").content[0]["text"] == "said"

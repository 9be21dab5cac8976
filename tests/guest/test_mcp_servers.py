"""MCP servers: how they are started, replaced, lost and started anew."""

from __future__ import annotations

import os

import pytest

from tests.guest.mcp_calls import STDIO, add, tools
from tests.guest.running import is_alive
from tests.waiting import wait_until


def test_a_server_gets_its_own_environment_and_directory(guest, tmp_path):
    config = {**STDIO, "env": {"KEY": "value", "NUMBER": 1}, "cwd": str(tmp_path)}
    assert add(guest, overwrite=True, tools=config).text == "OK"
    environment = guest.call_tool("environment").raw["structuredContent"]
    assert (environment["KEY"], environment["NUMBER"]) == ("value", "1")
    assert guest.call_tool("place").content[0]["text"].endswith(str(tmp_path))


def test_an_existing_name_is_kept_unless_it_is_to_be_overwritten(guest):
    add(guest, overwrite=True, tools=STDIO)
    first = guest.call_tool("place").content[0]["text"]
    assert add(guest, tools={"command": "nowhere"}).text == "OK"
    assert guest.call_tool("place").content[0]["text"] == first
    add(guest, overwrite=True, tools=STDIO)
    assert guest.call_tool("place").content[0]["text"] != first
    assert not is_alive(int(first.split()[0]))


def test_a_server_is_replaced_only_once_the_new_one_is_up(guest):
    add(guest, overwrite=True, tools=STDIO)
    first = guest.call_tool("place").content[0]["text"]
    assert add(guest, overwrite=True, tools={"command": "nowhere"}).status_code == 502
    assert guest.call_tool("place").content[0]["text"] == first


def test_servers_that_fail_are_named_with_reasons_and_the_others_stay(start_guest, http_server):
    # One that is up already: four seconds may be too few for a program to start in.
    url, _ = http_server("streamable-http")
    guest = start_guest(NGINX_TIMEOUT="9")
    answer = add(
        guest,
        good={"type": "streamable_http", "url": f"{url}/mcp"},
        missing={"command": "no-such-program"},
        dying={"command": "sh", "args": ["-c", "echo no key >&2; exit 1"]},
        silent={"command": "sh", "args": ["-c", "echo $$ >silent; echo hm >&2; sleep 60"]},
        nowhere={"type": "sse", "url": "http://127.0.0.1:1/sse"},
        nowhere2={"type": "streamable_http", "url": "http://127.0.0.1:1/mcp"},
    )
    assert answer.status_code == 502
    detail = answer.json()["detail"]
    assert "'missing': no-such-program: No such file" in detail
    assert "'dying': the program ended with exit code 1; it last said: no key" in detail
    assert "'silent': no answer within 4 s; it last said: hm" in detail
    assert "'nowhere': no connection" in detail
    assert "'nowhere2': no connection" in detail
    assert "Running: good." in detail
    assert list(tools(guest)) == ["good"]
    assert not is_alive(int((guest.workspace / "silent").read_text()))


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({}, "neither a 'command' to run nor a 'url'"),
        ("x", "one' should be an object"),
        ({"command": 1}, "one.command' should be a string"),
        ({"command": "x", "args": "y"}, "one.args' should be a list of strings"),
        ({"command": "x", "env": {"A": None}}, "one.env' should be an object of strings"),
        ({"url": "ftp://x"}, "one.url' should be an http://"),
        ({"url": "http://x", "type": "pigeon"}, "one.type' should be sse or streamable_http"),
        ({"url": "http://x", "timeout": -1}, "one.timeout' should be a number of seconds"),
    ],
)
def test_a_wrong_configuration_is_named(guest, config, named):
    answer = add(guest, one=config)
    assert answer.status_code == 422
    assert named in answer.json()["detail"]
    for wrong in ({}, {"mcpServers": []}, {"mcpServers": {}}):
        assert guest.post("mcp/add_servers", server_configs=wrong).status_code == 422


def test_a_server_that_dies_in_a_call_is_named_and_started_anew(guest):
    add(guest, overwrite=True, tools=STDIO)
    result = guest.call_tool("die")
    assert result.failed
    text = result.content[0]["text"]
    assert "die (MCP server tools)" in text
    assert "exit code 4; it last said: last words" in text
    assert guest.call_tool("add", a=2).content[0]["text"] == "3"


def test_a_server_that_died_between_calls_is_started_anew(guest):
    add(guest, overwrite=True, tools=STDIO)
    pid = int(guest.call_tool("place").content[0]["text"].split()[0])
    os.kill(pid, 9)
    wait_until(lambda: not is_alive(pid))
    assert "add" in tools(guest)["tools"]
    assert guest.call_tool("add", a=2).content[0]["text"] == "3"


@pytest.mark.parametrize(
    ("transport", "config"),
    [
        ("sse", {"url": "{}/sse"}),
        ("sse", {"type": "sse", "url": "{}/sse", "timeout": 5}),
        ("streamable-http", {"type": "streamable_http", "url": "{}/mcp"}),
        ("streamable-http", {"type": "streamableHttp", "url": "{}/mcp", "headers": {"X-A": "b"}}),
    ],
)
def test_servers_are_reached_over_http(guest, http_server, transport, config):
    url, process = http_server(transport)
    config = {**config, "url": config["url"].format(url)}
    assert add(guest, overwrite=True, tools=config).text == "OK"
    place = guest.call_tool("place").content[0]["text"]
    assert int(place.split()[0]) == process.pid
    lost = guest.call_tool("die")
    assert lost.failed
    assert "MCP server tools" in lost.content[0]["text"]
    gone = guest.call_tool("add", a=1)
    assert gone.failed
    assert "no connection" in gone.content[0]["text"]


def test_servers_and_what_they_started_go_with_the_guest(start_guest):
    guest = start_guest()
    add(guest, tools=STDIO)
    server = int(guest.call_tool("place").content[0]["text"].split()[0])
    child = guest.call_tool("start_child").raw["structuredContent"]["result"]
    assert is_alive(server)
    assert is_alive(child)
    assert guest.end() == 0
    assert not is_alive(server)
    wait_until(lambda: not is_alive(child))


def test_servers_configured_in_the_image_are_there_from_the_start(start_guest, make_config):
    guest = start_guest(GUEST_MCP_CONFIG=make_config(built_in=STDIO))
    assert list(tools(guest)) == ["built_in"]


def test_a_broken_configuration_in_the_image_is_logged_and_does_no_harm(start_guest, tmp_path):
    file = tmp_path / "mcp_servers.json"
    file.write_text("{")
    guest = start_guest(GUEST_MCP_CONFIG=str(file))
    assert tools(guest) == {}
    assert str(file) in guest.log.read_text()

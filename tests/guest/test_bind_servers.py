"""The MCP servers of a guest see the environment that it was bound to."""

from __future__ import annotations

import sys
import threading

from tests.guest.binding import VALUE, bind, file
from tests.guest.mcp_calls import STDIO, TOOLS
from tests.guest.running import is_alive
from tests.waiting import wait_until


def tool_environment(guest):
    return guest.call_tool("environment").raw["structuredContent"]


def test_a_server_started_afterwards_sees_it(start_guest):
    guest = start_guest()
    assert bind(guest, {"KEY": VALUE}).status_code == 200
    config = {"mcpServers": {"tools": STDIO}}
    assert guest.post("mcp/add_servers", server_configs=config).text == "OK"
    assert tool_environment(guest)["KEY"] == VALUE


def test_a_configured_server_is_started_anew_and_sees_it(start_guest, make_config):
    config = make_config(tools={**STDIO, "env": {"A": "own"}})
    guest = start_guest(GUEST_MCP_CONFIG=config)
    before = int(guest.call_tool("place").content[0]["text"].split()[0])
    assert bind(guest, {"KEY": VALUE, "A": "bound"}).status_code == 200
    environment = tool_environment(guest)
    assert (environment["KEY"], environment["A"]) == (VALUE, "own")
    assert not is_alive(before)


def test_a_configured_server_that_is_just_starting_is_started_anew(start_guest, make_config):
    guest = start_guest(GUEST_MCP_CONFIG=make_config(tools=STDIO))
    assert bind(guest, {"KEY": VALUE}).status_code == 200
    assert tool_environment(guest)["KEY"] == VALUE


def test_a_tool_call_that_waits_for_servers_to_load_sees_the_new_ones(start_guest, make_config):
    script = "echo $$ >>started; sleep 0.5; exec " + sys.executable + " " + TOOLS
    guest = start_guest(
        GUEST_MCP_CONFIG=make_config(tools={"command": "sh", "args": ["-c", script]})
    )
    started = guest.workspace / "started"
    wait_until(lambda: started.exists() and started.read_text())
    seen = []
    calling = threading.Thread(target=lambda: seen.append(tool_environment(guest)))
    calling.start()
    assert bind(guest, {"KEY": VALUE}).status_code == 200
    calling.join()
    assert seen[0]["KEY"] == VALUE
    first, last = started.read_text().split()
    assert not is_alive(int(first))
    assert is_alive(int(last))


def test_a_configured_server_that_lacked_its_key_gets_another_chance(start_guest, make_config):
    script = f'test -n "$KEY" && exec {sys.executable} {TOOLS}; echo no key >&2; exit 3'
    guest = start_guest(
        GUEST_MCP_CONFIG=make_config(tools={"command": "sh", "args": ["-c", script]})
    )
    assert guest.http.get("/fastapi/mcp/list_tools").json() == {}
    assert bind(guest, {"KEY": VALUE}).status_code == 200
    assert tool_environment(guest)["KEY"] == VALUE


def test_a_configured_server_that_does_not_start_anew_says_why(start_guest, make_config):
    script = f'test -z "$KEY" && exec {sys.executable} {TOOLS}; echo "not with $KEY" >&2; exit 3'
    guest = start_guest(
        GUEST_MCP_CONFIG=make_config(tools={"command": "sh", "args": ["-c", script]})
    )
    guest.call_tool("place")
    assert bind(guest, {"KEY": VALUE}).status_code == 200
    result = guest.call_tool("place")
    assert result.failed
    assert f"not with {VALUE}" in result.content[0]["text"]
    guest.http.get("/fastapi/mcp/list_tools")
    assert "tools did not start anew" in guest.log.read_text()
    assert VALUE not in guest.log.read_text()


def test_what_a_configured_server_says_of_its_key_is_not_logged(start_guest, make_config):
    script = 'echo "wrong key: $KEY" >&2; exit 3'
    guest = start_guest(
        GUEST_MCP_CONFIG=make_config(tools={"command": "sh", "args": ["-c", script]})
    )
    guest.http.get("/fastapi/mcp/list_tools")
    assert "wrong key:" in guest.log.read_text()
    assert bind(guest, {"KEY": VALUE}).status_code == 200
    assert guest.http.get("/fastapi/mcp/list_tools").json() == {}
    assert guest.log.read_text().count("MCP servers of") == 2
    assert VALUE not in guest.log.read_text()


def test_the_answer_does_not_wait_for_servers_but_a_tool_call_does(start_guest, make_config):
    script = f"while [ -e hold ]; do sleep 0.1; done; exec {sys.executable} {TOOLS}"
    guest = start_guest(
        GUEST_MCP_CONFIG=make_config(tools={"command": "sh", "args": ["-c", script]})
    )
    guest.call_tool("place")
    hold = guest.workspace / "hold"
    hold.touch()
    assert bind(guest, {"KEY": VALUE}).status_code == 200
    seen = []
    calling = threading.Thread(target=lambda: seen.append(tool_environment(guest)))
    calling.start()
    assert guest.shell("printenv KEY").stdout == f"{VALUE}\n"
    assert seen == []
    hold.unlink()
    calling.join()
    assert seen[0]["KEY"] == VALUE


def test_a_configured_server_stays_where_only_files_are_bound(start_guest, make_config):
    guest = start_guest(GUEST_MCP_CONFIG=make_config(tools=STDIO))
    before = guest.call_tool("place").content[0]["text"]
    assert bind(guest, files=[file("a")]).status_code == 200
    assert guest.call_tool("place").content[0]["text"] == before

"""A guest that was started for nobody becomes its caller's with one request."""

from __future__ import annotations

import base64
import json
import os
import sys
import threading
from pathlib import Path

import pytest

from tests.guest.running import RunningGuest, is_alive
from tests.waiting import wait_until

TOOLS = str(Path(__file__).parent / "servers/tools.py")
VALUE = "s3cret-of-the-caller"
BOUND = {"bound": True}


def bind(guest, environment=None, files=()):
    return guest.http.post("/v1/bind", json={"environment": environment or {}, "files": files})


def file(path, content=b"", **more):
    return {"path": path, "content": base64.b64encode(content).decode(), **more}


def names(guest):
    return sorted(str(path.relative_to(guest.workspace)) for path in guest.workspace.rglob("*"))


@pytest.fixture(scope="module")
def unbound_guest(tmp_path_factory):
    with RunningGuest(tmp_path_factory.mktemp("unbound")) as guest:
        yield guest


@pytest.fixture
def unbound(unbound_guest):
    """A guest with an empty workspace, for tests that bind nothing to it."""
    unbound_guest.empty_workspace()
    return unbound_guest


@pytest.fixture
def make_config(tmp_path):
    """Write a file of configured MCP servers and return its path."""

    def make(**servers):
        path = tmp_path / "mcp_servers.json"
        path.write_text(json.dumps({"mcpServers": servers}))
        return str(path)

    return make


@pytest.fixture
def temporary(tmp_path):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    return temporary


def tool_environment(guest):
    return guest.call_tool("environment").raw["structuredContent"]


# The environment.


def test_the_capabilities_tell_that_it_can_be_bound(guest):
    assert "bind" in guest.http.get("/v1/capabilities").json()["features"]


def test_a_command_sees_the_environment_on_top_of_the_containers(start_guest):
    guest = start_guest(COLOUR="blue", FRUIT="kiwi")
    answer = bind(guest, {"FRUIT": "fig", "KEY": VALUE, "EMPTY": "", "ODD": "a 'b' $c\nd=é"})
    assert (answer.status_code, answer.json()) == (200, BOUND)
    shown = guest.shell("echo $COLOUR $FRUIT $KEY [${EMPTY-unset}]; printenv ODD").stdout
    assert shown == f"blue fig {VALUE} []\na 'b' $c\nd=é\n"


def test_a_command_that_needs_no_shell_sees_it_whether_or_not_others_ran_before(start_guest):
    guest = start_guest(FRUIT="kiwi")
    # So often that the guest has learned to start it without a shell.
    assert {guest.shell("printenv FRUIT").stdout for _ in range(20)} == {"kiwi\n"}
    assert bind(guest, {"FRUIT": "fig"}).status_code == 200
    assert {guest.shell("printenv FRUIT").stdout for _ in range(20)} == {"fig\n"}
    shown = [sorted(guest.shell("env -0").stdout.split("\0")) for _ in range(20)]
    assert all(environment == shown[0] for environment in shown)


def test_a_setting_of_bash_counts_from_then_on(start_guest):
    guest = start_guest()
    for _ in range(20):
        guest.shell("ls")
    settings = guest.home / "settings"
    settings.write_text("echo set\n")
    assert bind(guest, {"BASH_ENV": str(settings)}).status_code == 200
    assert {guest.shell("true").stdout for _ in range(10)} == {"set\n"}


def test_a_cell_sees_it(start_guest):
    guest = start_guest()
    assert bind(guest, {"KEY": VALUE}).status_code == 200
    assert guest.cell("import os; print(os.environ['KEY'])").stdout == f"{VALUE}\n"


def test_a_kernel_that_ran_already_is_replaced_by_one_that_sees_it(start_guest):
    guest = start_guest(FRUIT="kiwi")
    before = int(guest.cell("import os; print(os.getpid())").stdout)
    assert bind(guest, {"FRUIT": "fig", "PYTHONHASHSEED": "0"}).status_code == 200
    result = guest.cell("import os, sys; print(os.environ['FRUIT'], sys.flags.hash_randomization)")
    assert (result.stdout, result.stderr, result.failed) == ("fig 0\n", None, False)
    wait_until(lambda: not is_alive(before))


def test_a_kernel_that_is_just_starting_is_replaced_too(start_guest, temporary):
    guest = start_guest(TMPDIR=str(temporary))
    assert "still starting" in guest.cell("1", timeout=0.05).content[0]["text"]
    assert bind(guest, {"KEY": VALUE}).status_code == 200
    assert guest.cell("import os; print(os.environ['KEY'])").stdout == f"{VALUE}\n"
    assert len(list(temporary.glob("kernel-*"))) == 1


def test_a_new_kernel_that_no_cell_has_asked_for_leaves_no_files(start_guest, temporary):
    guest = start_guest(TMPDIR=str(temporary))
    guest.cell("1")
    (before,) = temporary.glob("kernel-*")
    bind(guest, {"KEY": VALUE})
    # Its sockets appear when it is up.
    wait_until(lambda: not before.exists() and list(temporary.glob("kernel-*/channel-*")))
    assert guest.end() == 0
    assert list(temporary.glob("kernel-*")) == []


def test_a_kernel_stays_where_only_files_are_bound(start_guest):
    guest = start_guest()
    guest.cell("kept = 41")
    assert bind(guest, files=[file("a", b"1")]).status_code == 200
    assert guest.cell("print(kept + 1, open('a').read())").stdout == "42 1\n"


def test_a_cell_that_runs_is_not_disturbed_and_the_next_one_sees_it(start_guest):
    guest = start_guest()
    guest.cell("import os, time, pathlib")
    results = []
    code = "pathlib.Path('running').touch(); time.sleep(1); print(os.environ.get('KEY'))"
    running = threading.Thread(target=lambda: results.append(guest.cell(code)))
    running.start()
    wait_until((guest.workspace / "running").exists)
    assert bind(guest, {"KEY": VALUE}).status_code == 200
    assert guest.cell("import os; print(os.environ['KEY'])").stdout == f"{VALUE}\n"
    running.join()
    assert results[0].stdout == "None\n"


def test_git_sees_it(start_guest):
    guest = start_guest()
    settings = guest.home / "elsewhere"
    settings.mkdir()
    (settings / ".gitconfig").write_text("[core]\n\texcludesFile = ~/ignored\n")
    (settings / "ignored").write_text("*.log\n")
    for name in ("a.log", "a.txt"):
        (guest.workspace / name).write_text("x\n")
    assert bind(guest, {"HOME": str(settings)}).status_code == 200
    assert list(guest.post("watcher/generate_diff").json()["diffs"]) == ["a.txt"]


def test_home_and_path_count_as_at_the_start(start_guest, tmp_path):
    home = tmp_path / "of-the-caller"
    home.mkdir()
    bound, started = start_guest(), start_guest(HOME=str(home), PATH="/usr/bin:/bin")
    assert bind(bound, {"HOME": str(home), "PATH": "/usr/bin:/bin"}).status_code == 200
    shown = bound.shell("echo $HOME $PATH").stdout
    assert shown == started.shell("echo $HOME $PATH").stdout
    assert shown == f"{home} {home}/.local/bin:/usr/bin:/bin\n"


def test_a_home_that_cannot_be_used_is_replaced_as_at_the_start(start_guest, temporary):
    guest = start_guest(TMPDIR=str(temporary))
    assert bind(guest, {"HOME": "/nonexistent/" + "a" * 300}).status_code == 200
    assert Path(guest.shell("echo $HOME").stdout.strip()).parent == temporary


# The configured MCP servers.


def test_a_server_started_afterwards_sees_it(start_guest):
    guest = start_guest()
    assert bind(guest, {"KEY": VALUE}).status_code == 200
    config = {"mcpServers": {"tools": {"command": sys.executable, "args": [TOOLS]}}}
    assert guest.post("mcp/add_servers", server_configs=config).text == "OK"
    assert tool_environment(guest)["KEY"] == VALUE


def test_a_configured_server_is_started_anew_and_sees_it(start_guest, make_config):
    config = make_config(tools={"command": sys.executable, "args": [TOOLS], "env": {"A": "own"}})
    guest = start_guest(GUEST_MCP_CONFIG=config)
    before = int(guest.call_tool("place").content[0]["text"].split()[0])
    assert bind(guest, {"KEY": VALUE, "A": "bound"}).status_code == 200
    environment = tool_environment(guest)
    assert (environment["KEY"], environment["A"]) == (VALUE, "own")
    assert not is_alive(before)


def test_a_configured_server_that_is_just_starting_is_started_anew(start_guest, make_config):
    guest = start_guest(
        GUEST_MCP_CONFIG=make_config(tools={"command": sys.executable, "args": [TOOLS]})
    )
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
    guest = start_guest(
        GUEST_MCP_CONFIG=make_config(tools={"command": sys.executable, "args": [TOOLS]})
    )
    before = guest.call_tool("place").content[0]["text"]
    assert bind(guest, files=[file("a")]).status_code == 200
    assert guest.call_tool("place").content[0]["text"] == before


# Files.


def test_files_land_with_their_directories_and_permissions(start_guest):
    guest = start_guest()
    script = file("bin/deep/run", b"#!/bin/sh\necho ran\n", mode=0o750)
    binary, empty = file("a.bin", bytes(range(256))), file(f"{guest.workspace}/d/empty", mode=None)
    assert bind(guest, files=[script, binary, empty]).json() == BOUND
    assert names(guest) == ["a.bin", "bin", "bin/deep", "bin/deep/run", "d", "d/empty"]
    assert (guest.workspace / "a.bin").read_bytes() == bytes(range(256))
    assert (guest.workspace / "d/empty").read_bytes() == b""
    assert (guest.workspace / "bin/deep/run").stat().st_mode & 0o7777 == 0o750
    assert guest.shell("bin/deep/run").stdout == "ran\n"


def test_permissions_do_not_depend_on_the_umask_where_they_are_given(start_guest):
    guest = start_guest()
    files = [file("open", mode=0o666), file("closed", b"x", mode=0o400), file("none", mode=0)]
    assert bind(guest, files=files).status_code == 200
    modes = [(guest.workspace / one["path"]).stat().st_mode & 0o7777 for one in files]
    assert modes == [0o666, 0o400, 0]


def test_a_file_that_is_there_is_replaced_and_hands_on_its_permissions(start_guest):
    guest = start_guest()
    for name in ("kept", "given"):
        (guest.workspace / name).write_text("old")
        (guest.workspace / name).chmod(0o700)
    assert bind(guest, files=[file("kept", b"new"), file("given", b"new", mode=0o600)]).is_success
    kept, given = guest.workspace / "kept", guest.workspace / "given"
    assert (kept.read_text(), given.read_text()) == ("new", "new")
    assert (kept.stat().st_mode & 0o777, given.stat().st_mode & 0o777) == (0o700, 0o600)
    assert names(guest) == ["given", "kept"]


def test_links_that_stay_inside_are_followed(start_guest):
    guest = start_guest()
    (guest.workspace / "real").mkdir()
    (guest.workspace / "link").symlink_to("real")
    (guest.workspace / "dangling").symlink_to(guest.workspace / "new/deep")
    assert bind(guest, files=[file("link/a", b"1"), file("dangling/b", b"2")]).status_code == 200
    assert (guest.workspace / "real/a").read_text() == "1"
    assert (guest.workspace / "new/deep/b").read_text() == "2"


@pytest.mark.parametrize(
    "path", ["../escaped", "a/../../escaped", "/escaped", "out/escaped", "file-out", "up/escaped"]
)
def test_no_file_escapes_from_the_workspace(unbound, path):
    outside = unbound.home / "outside"
    outside.mkdir(exist_ok=True)
    (unbound.workspace / "out").symlink_to(outside)
    (unbound.workspace / "file-out").symlink_to(outside / "escaped")
    (unbound.workspace / "up").symlink_to("..")
    before = names(unbound)
    answer = bind(unbound, {"KEY": VALUE}, [file("good/a", b"1"), file(path, b"2")])
    assert answer.status_code == 403
    assert path in answer.json()["detail"]
    assert names(unbound) == before
    assert list(outside.iterdir()) == []
    assert unbound.shell("printenv KEY").failed


@pytest.mark.parametrize(
    ("files", "status", "named"),
    [
        ({}, 422, "'files' should be a list"),
        (["a"], 422, "'files[0]' should be an object"),
        ([{"content": ""}], 422, "'files[0].path' is missing"),
        ([{"path": "a"}], 422, "'files[0].content' is missing"),
        ([file("a"), {"path": "", "content": ""}], 422, "'files[1].path' is empty"),
        ([file("a\0b")], 422, "'files[0].path' holds a NUL"),
        ([{"path": "\ud800", "content": ""}], 422, "'files[0].path' is not valid Unicode"),
        ([{"path": "a", "content": 1}], 422, "'files[0].content' should be a string"),
        ([file("a"), {"path": "b", "content": "YQ"}], 422, "'files[1].content' is not base64"),
        ([{"path": "b", "content": "Y Q=="}], 422, "'files[0].content' is not base64"),
        ([{"path": "b", "content": "é==="}], 422, "'files[0].content' is not base64"),
        ([file("a", mode="644")], 422, "'files[0].mode'"),
        ([file("a", mode=True)], 422, "'files[0].mode'"),
        ([file("a", mode=0o4755)], 422, "'files[0].mode'"),
        ([file("a", owner="root")], 422, "'owner'; known: path, content, mode"),
        ([file("a"), file("./b/../a")], 422, "'files[1].path' is that of an earlier file"),
        ([file("a")] * 501, 413, "more than 500"),
        ([file("d/a"), file("d")], 409, "d is a directory"),
        ([file("d"), file("d/a")], 409, "d is a directory"),
        ([file("x"), file(".")], 409, "is a directory"),
        ([file("x"), file("there/a")], 409, "there on the way"),
        ([file("x/y/z"), file("a" * 300)], 422, "name too long"),
    ],
)
def test_a_wrong_file_is_named_and_nothing_is_bound(unbound, files, status, named):
    (unbound.workspace / "there").write_text("old")
    raw = json.dumps({"environment": {"KEY": VALUE}, "files": files})
    answer = unbound.http.post("/v1/bind", content=raw)
    assert answer.status_code == status
    assert named in answer.json()["detail"]
    assert names(unbound) == ["there"]
    assert unbound.shell("printenv KEY").failed


def test_a_refused_bind_leaves_the_guest_to_be_bound_to_other_content(start_guest):
    guest = start_guest()
    for files in ([file("a"), file("../b")], [file("a"), file("a/b")]):
        assert bind(guest, {"KEY": VALUE}, files).status_code in (403, 409)
    assert bind(guest, {"KEY": "other"}, [file("a")]).json() == BOUND
    assert guest.shell("printenv KEY").stdout == "other\n"
    assert names(guest) == ["a"]


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_keeps_every_file_out(start_guest):
    guest = start_guest()
    closed = guest.workspace / "closed"
    closed.mkdir(mode=0o555)
    assert bind(guest, files=[file("new/a"), file("closed/b")]).status_code == 403
    assert names(guest) == ["closed"]


# How often, and what not.


def test_the_same_content_again_is_a_success_and_other_content_is_refused(start_guest):
    guest = start_guest()
    files = [file("a", b"1"), file("b", b"2")]
    body = {"environment": {"KEY": VALUE, "B": "2"}, "files": files}
    assert guest.http.post("/v1/bind", json=body).json() == BOUND
    (guest.workspace / "a").write_text("changed since")
    again = {"files": files[::-1], "environment": {"B": "2", "KEY": VALUE}}
    for same in (body, again):
        answer = guest.http.post("/v1/bind", json=same)
        assert (answer.status_code, answer.json()) == (200, BOUND)
    assert (guest.workspace / "a").read_text() == "changed since"
    for other in (
        {"environment": {"KEY": "other", "B": "2"}, "files": files},
        {"environment": body["environment"]},
        {"environment": body["environment"], "files": [file("a", b"1"), file("b", b"3")]},
        {"environment": body["environment"], "files": [file("a", b"1"), file("c", b"2")]},
    ):
        answer = guest.http.post("/v1/bind", json=other)
        assert answer.status_code == 409
        assert "is bound already" in answer.json()["detail"]
        assert VALUE not in answer.text
    assert names(guest) == ["a", "b"]
    assert guest.shell("printenv KEY").stdout == f"{VALUE}\n"


def test_the_same_request_twice_at_once_binds_once(start_guest):
    guest = start_guest()
    guest.cell("1")
    statuses = []

    def send():
        with guest.client() as client:
            body = {"environment": {"KEY": VALUE}, "files": [file("a", b"1" * 1_000_000)]}
            statuses.append(client.post("/v1/bind", json=body).status_code)

    senders = [threading.Thread(target=send) for _ in range(4)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert statuses == [200] * 4
    assert names(guest) == ["a"]


@pytest.mark.parametrize(
    "body", [{}, {"environment": {}}, {"files": []}, {"environment": None, "files": None}]
)
def test_an_empty_bind_succeeds_and_does_not_count(start_guest, body):
    guest = start_guest()
    assert guest.http.post("/v1/bind", json=body).json() == BOUND
    assert bind(guest, {"KEY": VALUE}).status_code == 200
    assert guest.http.post("/v1/bind", json=body).json() == BOUND
    assert bind(guest, {"KEY": "other"}).status_code == 409


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ([VALUE], "'environment' should be an object"),
        ({"SECRET_TOKEN": VALUE}, "'environment.SECRET_TOKEN' belongs to the platform"),
        ({"NGINX_TIMEOUT": VALUE}, "'environment.NGINX_TIMEOUT' belongs to the platform"),
        ({"WORKSPACE_DIR": VALUE}, "'environment.WORKSPACE_DIR' belongs to the platform"),
        ({"GUEST_ANYTHING": VALUE}, "'environment.GUEST_ANYTHING' belongs to the platform"),
        ({"A": "a", "KEY": [VALUE]}, "'environment.KEY' should be a string"),
        ({"KEY": None}, "'environment.KEY' should be a string"),
        ({"KEY": 1}, "'environment.KEY' should be a string"),
        ({"KEY": f"{VALUE}\0"}, "'environment.KEY' holds a NUL"),
        ({"KEY": f"{VALUE}\ud800"}, "'environment.KEY' is not valid Unicode"),
        ({"KEY": VALUE * 10_000}, "'environment.KEY' is longer"),
        ({f"K{n}": VALUE * 5_000 for n in range(20)}, "'environment' is larger than 1 MiB"),
        ({"": VALUE}, "a name that no variable can have: ''"),
        ({f"KEY={VALUE}": ""}, "a name that no variable can have: 'KEY='"),
        ({"K\0": VALUE}, r"a name that no variable can have: 'K\x00'"),
        ({"K\ud800": VALUE}, r"a name that no variable can have: 'K\ud800'"),
    ],
)
def test_a_wrong_variable_is_named_without_its_value(unbound, environment, named):
    answer = unbound.http.post("/v1/bind", content=json.dumps({"environment": environment}))
    assert answer.status_code == 422
    assert named in answer.json()["detail"]
    assert VALUE not in answer.text
    assert VALUE not in unbound.log.read_text()
    assert unbound.http.post("/v1/bind", json={"env": {}}).status_code == 422


def test_the_largest_environment_that_is_taken_can_be_used(start_guest):
    guest = start_guest()
    environment = {f"K{number}": "x" * 131_000 for number in range(8)}
    assert bind(guest, environment).status_code == 200
    assert guest.shell(f"echo {'y' * 100_000} | wc -c").stdout.strip() == "100001"


def test_it_takes_no_more_than_other_bodies_and_only_post(guest):
    with guest.raw_request("POST", "/v1/bind", f"Content-Length: {2**40}") as connection:
        assert connection.recv(10_000).startswith(b"HTTP/1.1 413 ")
    assert guest.http.get("/v1/bind").status_code == 405
    assert guest.http.post("/v1/bind", content=b"{").status_code == 400


def test_it_needs_the_secret(guest):
    with guest.client(Authorization="Bearer wrong") as client:
        assert client.post("/v1/bind", json={"environment": {"KEY": VALUE}}).status_code == 403


def test_its_values_reach_neither_the_log_nor_the_process(start_guest, make_config):
    guest = start_guest(
        GUEST_MCP_CONFIG=make_config(tools={"command": sys.executable, "args": [TOOLS]})
    )
    guest.cell("1")
    assert bind(guest, {"KEY": VALUE}, [file("a", VALUE.encode())]).status_code == 200
    bind(guest, {"KEY": f"{VALUE}2"})
    guest.shell("true")
    guest.cell("1")
    guest.call_tool("place")
    guest.post("watcher/git_logs")
    assert guest.end() == 0
    assert VALUE not in guest.log.read_text()


def test_nothing_of_a_config_or_a_file_is_shown_by_its_repr():
    from sandboxes.guest.config import Config
    from sandboxes.guest.workspace.together import NewFile

    environment = {"SECRET_TOKEN": VALUE, "WORKSPACE_DIR": "/tmp"}
    config = Config.from_environment({**environment, "OTHER": VALUE})
    assert VALUE not in repr(config.with_environment({"KEY": VALUE}))
    assert VALUE not in repr(NewFile("a", VALUE.encode()))


def test_a_landing_that_fails_half_way_is_undone(tmp_path, monkeypatch):
    from sandboxes.guest.workspace.paths import Paths
    from sandboxes.guest.workspace.together import NewFile, write_together
    from sandboxes.guest.workspace.uploads import Staging

    (tmp_path / "old").write_text("old")
    (tmp_path / "last").write_text("last")
    land = Staging.land

    def fail_at_the_last(staging, name, place):
        if place.name == "last":
            raise OSError(28, "No space left on device")
        return land(staging, name, place)

    monkeypatch.setattr(Staging, "land", fail_at_the_last)
    files = [NewFile(path, b"new", 0o600) for path in ("old", "new/deep/a", "last")]
    with pytest.raises(OSError, match="No space"):
        write_together(Paths(str(tmp_path)), files)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["last", "old"]
    assert ((tmp_path / "old").read_text(), (tmp_path / "last").read_text()) == ("old", "last")

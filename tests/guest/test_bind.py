"""A guest that was started for nobody becomes its caller's with one request."""

from __future__ import annotations

import threading

import pytest

from tests.guest.binding import BOUND, VALUE, bind, file
from tests.guest.mcp_calls import STDIO
from tests.guest.running import names


def test_the_capabilities_tell_that_it_can_be_bound(guest):
    assert "bind" in guest.http.get("/v1/capabilities").json()["features"]


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
    assert names(guest.workspace) == ["a", "b"]
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
    assert names(guest.workspace) == ["a"]


@pytest.mark.parametrize(
    "body", [{}, {"environment": {}}, {"files": []}, {"environment": None, "files": None}]
)
def test_an_empty_bind_succeeds_and_does_not_count(start_guest, body):
    guest = start_guest()
    assert guest.http.post("/v1/bind", json=body).json() == BOUND
    assert bind(guest, {"KEY": VALUE}).status_code == 200
    assert guest.http.post("/v1/bind", json=body).json() == BOUND
    assert bind(guest, {"KEY": "other"}).status_code == 409


def test_it_takes_no_more_than_other_bodies_and_only_post(guest):
    with guest.raw_request("POST", "/v1/bind", f"Content-Length: {2**40}") as connection:
        assert connection.recv(10_000).startswith(b"HTTP/1.1 413 ")
    assert guest.http.get("/v1/bind").status_code == 405
    assert guest.http.post("/v1/bind", content=b"{").status_code == 400


def test_it_needs_the_secret(guest):
    with guest.client(Authorization="Bearer wrong") as client:
        assert client.post("/v1/bind", json={"environment": {"KEY": VALUE}}).status_code == 403


def test_its_values_reach_neither_the_log_nor_the_process(start_guest, make_config):
    guest = start_guest(GUEST_MCP_CONFIG=make_config(tools=STDIO))
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

"""Who may ask, and what is said to a request that is wrong."""

from __future__ import annotations

import errno

import pytest
from starlette.requests import Request

from sandboxes.guest.app import _system_refusal
from tests.guest.running import SECRET

SHELL = "/fastapi/tools/run_shell_command"


@pytest.mark.parametrize("path", ["/fastapi/healthz", "/v1/capabilities", "/", "/nothing/here"])
@pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic {secret}", "{secret}", "Bearer"])
def test_every_path_refuses_a_request_without_the_secret(guest, path, header):
    with guest.client() as client:
        del client.headers["Authorization"]
        if header:
            client.headers["Authorization"] = header.format(secret=SECRET)
        answer = client.get(path)
    assert answer.status_code == 403
    assert "Authorization" in answer.json()["detail"]
    assert answer.headers["x-guest-refusal"] == "secret"


async def test_what_the_system_forbids_is_told_from_a_wrong_secret():
    # Called by itself, because root, as whom tests may run, is forbidden nothing.
    scope = {"type": "http", "method": "PUT", "path": "/a", "query_string": b"", "headers": []}
    error = PermissionError(errno.EACCES, "Permission denied")
    answer = await _system_refusal(Request(scope), error)
    assert (answer.status_code, answer.headers["x-guest-refusal"]) == (403, "system")


def test_the_scheme_may_be_written_in_any_case(guest):
    with guest.client(Authorization=f"bearer {SECRET}") as client:
        assert client.get("/fastapi/healthz").status_code == 200


def test_a_second_authorization_header_from_a_proxy_does_no_harm(guest):
    headers = [("Authorization", "Bearer caller"), ("Authorization", f"Bearer {SECRET}")]
    with guest.client() as client:
        del client.headers["Authorization"]
        assert client.get("/fastapi/healthz", headers=headers).status_code == 200


def test_capabilities_say_what_the_guest_can_do(guest):
    answer = guest.http.get("/v1/capabilities").json()
    assert answer["guest"] == "sandboxplatform"
    assert answer["protocol"] == 1
    assert {"shell", "ipython", "workspace", "mcp", "watcher"} <= set(answer["features"])


def test_an_unknown_path_and_a_wrong_method_are_named(guest):
    missing = guest.http.get("/fastapi/nothing")
    assert (missing.status_code, missing.json()) == (
        404,
        {"detail": "This guest has no GET /fastapi/nothing."},
    )
    wrong = guest.http.post("/fastapi/healthz")
    assert wrong.status_code == 405
    assert "POST" in wrong.json()["detail"]


def test_a_body_that_is_not_json_is_refused(guest):
    for body in (b"", b"{", b"\xff\xfe", b"[" * 100_000):
        answer = guest.http.post(SHELL, content=body)
        assert answer.status_code == 400
        assert "JSON" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ([], "object"),
        ({}, "'command' is missing"),
        ({"command": None}, "'command' should be a string"),
        ({"command": 1}, "'command' should be a string"),
        ({"command": ""}, "'command' is empty"),
        ({"command": "a\0b"}, "NUL"),
        ({"command": "true", "cwd": "/"}, "'cwd' is not known"),
        ({"command": "true", "timeout": "1"}, "'timeout' should be a number"),
        ({"command": "true", "timeout": True}, "'timeout' should be a number"),
        ({"command": "true", "timeout": 0}, "'timeout' should be above 0"),
    ],
)
def test_a_wrong_field_is_named(guest, body, named):
    answer = guest.http.post(SHELL, json=body)
    assert answer.status_code == 422
    assert named in answer.json()["detail"]


def test_half_a_surrogate_pair_is_refused_rather_than_a_fault(guest):
    answer = guest.http.post(SHELL, content=rb'{"command": "echo \ud800"}')
    assert answer.status_code == 422
    assert "Unicode" in answer.json()["detail"]


def test_a_body_above_the_limit_is_refused_before_it_is_read(guest):
    with guest.raw_request("POST", SHELL, f"Content-Length: {2**40}") as connection:
        answer = connection.recv(10_000)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"64 MiB" in answer


def test_a_body_of_unknown_length_is_refused_above_the_limit(guest):
    def endless():
        for _ in range(70):
            yield b" " * 1024 * 1024

    answer = guest.http.post(SHELL, content=endless())
    assert answer.status_code == 413


def test_the_head_of_an_answer_comes_with_its_body(guest):
    with guest.raw_request("GET", "/v1/capabilities") as caller:
        received = caller.recv(65536)
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert received.endswith(b"}")


def test_a_head_without_a_body_comes_at_once(guest):
    with guest.raw_request("HEAD", "/fastapi/healthz") as caller:
        assert caller.recv(65536).endswith(b"\r\n\r\n")


def test_a_caller_that_waits_for_leave_to_send_its_body_gets_it(guest):
    body = b'{"command": "echo continued"}'
    expect = ("Expect: 100-continue", f"Content-Length: {len(body)}")
    with guest.raw_request("POST", "/fastapi/tools/run_shell_command", *expect) as caller:
        assert caller.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        caller.sendall(body)
        assert b"continued" in caller.recv(65536)

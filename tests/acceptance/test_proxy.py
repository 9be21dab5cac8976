"""/proxy/{identity}/{path}: streams both ways, and guards both sides."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import socket
import subprocess
from pathlib import Path

import aiohttp
import pytest

from tests.server import TOKEN
from tests.waiting import wait_until

MEBIBYTE = 1024 * 1024


def put(server, name, path, body, **options):
    return server.request("PUT", f"/proxy/{name}/workspace/file?path={path}", body, **options)


def test_files_pass_with_the_guests_own_statuses(server, sandbox):
    status, _, body = put(server, sandbox, "a.txt", b"hello")
    assert (status, json.loads(body)["path"]) == (200, "/workspace/a.txt")
    status, body = server.get(f"/proxy/{sandbox}/workspace/file?path=a.txt")
    assert (status, body) == (200, b"hello")
    assert server.get(f"/proxy/{sandbox}/workspace/file?path=missing")[0] == 404
    assert server.get(f"/proxy/{sandbox}/workspace/file?path=../etc/passwd")[0] == 403
    assert server.request("DELETE", f"/proxy/{sandbox}/workspace/entry?path=a.txt")[0] == 204


def test_the_token_is_checked(server, sandbox):
    for token in ("", "wrong"):
        status, headers, _ = server.request(
            "GET", f"/proxy/{sandbox}/workspace/list?path=.", token=token
        )
        assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")


def test_an_unknown_sandbox_is_a_404(server):
    status, body = server.get("/proxy/nobody/workspace/list?path=.")
    assert (status, json.loads(body)["detail"]) == (404, "There is no sandbox 'nobody'.")


@pytest.mark.parametrize("path", ["../tools", "a/../../b", "%2e%2e/secret", "workspace/%2E%2e/x"])
def test_a_path_cannot_leave_the_guests_prefix(server, sandbox, path):
    assert server.get(f"/proxy/{sandbox}/{path}")[0] == 400


def test_names_are_passed_as_the_client_quoted_them(server, sandbox):
    name = "with%20space%2Bplus%26and%C3%A9.txt"
    assert put(server, sandbox, name, b"x")[0] == 200
    _, body = server.get(f"/proxy/{sandbox}/workspace/list?path=.")
    assert "with space+plus&andé.txt" in [entry["name"] for entry in json.loads(body)]


def memory_of(pid):
    """Return the resident MiB of a process and all that it started."""
    total, pids = 0, [pid]
    for each in pids:
        for line in Path(f"/proc/{each}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                total += int(line.split()[1]) // 1024
        pids += map(int, Path(f"/proc/{each}/task/{each}/children").read_text().split())
    return total


def pieces(count, size=MEBIBYTE):
    block = bytes(range(256)) * (size // 256)
    for _ in range(count):
        yield block


@pytest.mark.slow
def test_one_gibibyte_passes_both_ways_with_constant_memory(server, sandbox):
    count, peak = 1024, 0
    before = memory_of(server.process.pid)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    connection.putrequest("PUT", f"/proxy/{sandbox}/workspace/file?path=big")
    connection.putheader("Authorization", f"Bearer {TOKEN}")
    connection.putheader("Content-Length", str(count * MEBIBYTE))
    connection.endheaders()
    sent = hashlib.sha256()
    for number, block in enumerate(pieces(count)):
        connection.send(block)
        sent.update(block)
        if number % 128 == 127:
            peak = max(peak, memory_of(server.process.pid))
    answer = connection.getresponse()
    assert answer.status == 200
    assert json.loads(answer.read())["size"] == count * MEBIBYTE

    connection.request(
        "GET", f"/proxy/{sandbox}/workspace/file?path=big&format=bytes", headers=headers
    )
    answer = connection.getresponse()
    received, size = hashlib.sha256(), 0
    while block := answer.read(MEBIBYTE):
        received.update(block)
        size += len(block)
        if size % (128 * MEBIBYTE) < MEBIBYTE:
            peak = max(peak, memory_of(server.process.pid))
    connection.close()
    assert received.digest() == sent.digest()
    assert peak - before < 64
    server.request("DELETE", f"/proxy/{sandbox}/workspace/entry?path=big")


def test_a_chunked_upload_passes(server, sandbox):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request(
        "PUT",
        f"/proxy/{sandbox}/workspace/file?path=chunked",
        body=iter([b"one,", b"two,", b"three"]),
        headers={"Authorization": f"Bearer {TOKEN}", "Transfer-Encoding": "chunked"},
        encode_chunked=True,
    )
    assert connection.getresponse().status == 200
    connection.close()
    assert server.shell(sandbox, "cat chunked") == "one,two,three"


def test_a_broken_upload_leaves_nothing(server, sandbox):
    put(server, sandbox, "kept", b"whole")
    for path in ("kept", "new"):
        with socket.create_connection(("127.0.0.1", server.port)) as raw:
            raw.sendall(
                f"PUT /proxy/{sandbox}/workspace/file?path={path} HTTP/1.1\r\nHost: x\r\n"
                f"Authorization: Bearer {TOKEN}\r\nContent-Length: 1000000\r\n\r\n".encode()
                + b"x" * 300_000
            )
    wait_until(lambda: server.shell(sandbox, "ls -A") == "kept\n")
    assert server.shell(sandbox, "cat kept") == "whole"


def test_a_client_that_leaves_ends_its_command(server, sandbox):
    command = json.dumps({"command": "echo $$ > pid; sleep 300"})
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(
            f"POST /proxy/{sandbox}/tools/run_shell_command HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(command)}\r\n\r\n{command}".encode()
        )
        wait_until(lambda: server.shell(sandbox, "cat pid 2>/dev/null || true"))
    alive = "kill -0 $(cat pid) 2>/dev/null && echo alive || echo gone"
    wait_until(lambda: server.shell(sandbox, alive) == "gone\n")


def test_headers_are_those_of_the_request_without_ours(server, sandbox):
    status, headers, _ = server.request(
        "GET",
        f"/proxy/{sandbox}/workspace/exists?path=x",
        headers={"Cookie": "sessionid=secret", "Connection": "keep-alive, X-Hop", "X-Hop": "1"},
    )
    assert status == 200
    assert "Set-Cookie" not in headers
    assert headers["X-Request-Id"]


def test_a_websocket_that_the_guest_does_not_know_is_refused_with_a_status(server, sandbox):
    async def connect(path, token):
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await session.ws_connect(
                    server.url + path, headers={"Authorization": f"Bearer {token}"}
                )
        return caught.value.status

    assert asyncio.run(connect(f"/proxy/{sandbox}/nowhere", "wrong")) == 401
    assert asyncio.run(connect("/proxy/nobody/nowhere", TOKEN)) == 404
    assert asyncio.run(connect(f"/proxy/{sandbox}/nowhere", TOKEN)) in (403, 404)


def test_curl_can_upload_and_download(server, sandbox, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"x" * 2_000_000)
    url = f"{server.url}/proxy/{sandbox}/workspace/file?path=curl"
    header = f"Authorization: Bearer {TOKEN}"
    subprocess.run(["curl", "-sfS", "-H", header, "-T", str(file), url], check=True, timeout=30)
    done = subprocess.run(
        ["curl", "-sfS", "-H", header, f"{url}&format=bytes"],
        check=True,
        timeout=30,
        capture_output=True,
    )
    assert done.stdout == file.read_bytes()

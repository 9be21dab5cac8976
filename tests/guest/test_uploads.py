from __future__ import annotations

import hashlib

import pytest

from tests.guest.running import names
from tests.guest.workspace_calls import FILE
from tests.waiting import wait_until

BATCH = "/fastapi/workspace/files:batch"
MIB = 1024 * 1024


def multipart(*parts):
    """Encode parts, each (name, content) or (name, filename, content), in this very order."""
    body = b""
    for name, *filename, content in parts:
        body += f'--edge\r\nContent-Disposition: form-data; name="{name}"'.encode()
        if filename:
            body += f'; filename="{filename[0]}"'.encode()
        body += b"\r\n\r\n" + content + b"\r\n"
    return {
        "content": body + b"--edge--\r\n",
        "headers": {"Content-Type": "multipart/form-data; boundary=edge"},
    }


def test_an_upload_that_breaks_off_leaves_nothing(guest, workspace):
    guest.http.put(FILE, params={"path": "kept"}, content=b"old")
    for path in ("kept", "new"):
        target = f"{FILE}?path={path}"
        with guest.raw_request("PUT", target, "Content-Length: 9000000") as connection:
            connection.sendall(b"x" * 3 * MIB)
            wait_until(lambda: any(n.startswith(".upload-") for n in names(workspace)))
            listing = guest.http.get("/fastapi/workspace/list", params={"path": "."}).json()
            assert [entry["name"] for entry in listing] == ["kept"]
        wait_until(lambda: names(workspace) == ["kept"])
    assert (workspace / "kept").read_text() == "old"


def test_an_upload_without_a_length_is_taken(guest, workspace):
    answer = guest.http.put(FILE, params={"path": "chunked"}, content=iter([b"a", b"b"]))
    assert answer.json()["size"] == 2


def test_a_batch_lands_in_the_order_it_came(guest, workspace):
    body = multipart(
        ("paths", b"b/2"), ("files", "x", b"two"), ("paths", b"a/1"), ("files", "x", b"one")
    )
    entries = guest.http.post(BATCH, **body).json()
    assert [entry["path"] for entry in entries] == [f"{workspace}/b/2", f"{workspace}/a/1"]
    assert [entry["size"] for entry in entries] == [3, 3]
    assert (workspace / "a/1").read_text() == "one"


def test_paths_may_come_after_all_files(guest, workspace):
    body = multipart(("files", "x", b"1"), ("files", "y", b"2"), ("paths", b"p"), ("paths", b"q"))
    guest.http.post(BATCH, **body)
    assert (workspace / "q").read_text() == "2"


def test_without_paths_the_file_names_count(guest, workspace):
    body = multipart(("files", "sub/ü.txt", b"1"))
    [entry] = guest.http.post(BATCH, **body).json()
    assert entry["path"] == f"{workspace}/sub/ü.txt"


def test_an_empty_batch_answers_an_empty_list(guest, workspace):
    assert guest.http.post(BATCH, **multipart()).json() == []


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ([("paths", b"a"), ("files", "x", b"1"), ("files", "y", b"2")], 400),
        ([("paths", b"a"), ("paths", b"b"), ("files", "x", b"1")], 400),
        ([("files", "", b"1")], 400),
        ([("files", "good", b"1"), ("files", "../bad", b"2")], 403),
        ([("files", "good", b"1"), ("files", "directory", b"2")], 409),
        ([("files", "good", b"1"), ("file", "x", b"2")], 422),
        ([("files", "good", b"1"), ("paths", b"\xff")], 422),
    ],
)
def test_of_a_batch_with_a_wrong_part_nothing_lands(guest, workspace, parts, status):
    (workspace / "directory").mkdir()
    answer = guest.http.post(BATCH, **multipart(*parts))
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"]
    assert names(workspace) == ["directory"]


def test_a_batch_that_is_cut_or_no_multipart_is_refused(guest, workspace):
    whole = multipart(("files", "x", b"1"))
    cut = {**whole, "content": whole["content"][:-12]}
    assert guest.http.post(BATCH, **cut).status_code == 400
    garbage = {**whole, "content": b"garbage"}
    assert guest.http.post(BATCH, **garbage).status_code == 400
    assert guest.http.post(BATCH, json={}).status_code == 415
    headers = {"Content-Type": "multipart/form-data"}
    assert guest.http.post(BATCH, content=b"", headers=headers).status_code == 400
    assert names(workspace) == []


def test_a_batch_of_many_files_does_not_run_out_of_descriptors(guest, workspace):
    body = multipart(*(("files", f"many/{number}", b"x") for number in range(1500)))
    assert len(guest.http.post(BATCH, **body).json()) == 1500


@pytest.mark.parametrize(
    "size_mb", [200, pytest.param(1024, marks=pytest.mark.slow)], ids=lambda mb: f"{mb}MiB"
)
def test_large_files_go_both_ways_in_constant_memory(start_guest, size_mb):
    guest = start_guest()
    before = guest.peak_memory_mb()
    block = bytes(range(256)) * 4096
    sent, received = hashlib.md5(), hashlib.md5()  # noqa: S324

    def blocks():
        for _ in range(size_mb):
            sent.update(block)
            yield block

    guest.http.put(FILE, params={"path": "large"}, content=blocks(), timeout=120)
    assert (guest.workspace / "large").stat().st_size == size_mb * MIB
    params = {"path": "large", "format": "bytes"}
    with guest.http.stream("GET", FILE, params=params) as answer:
        assert answer.headers["content-length"] == str(size_mb * MIB)
        for chunk in answer.iter_raw():
            received.update(chunk)
    assert received.digest() == sent.digest()
    head = b'--edge\r\nContent-Disposition: form-data; name="files"; filename="batch"\r\n\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=edge"}

    def batch():
        yield head
        yield from blocks()
        yield b"\r\n--edge--\r\n"

    [entry] = guest.http.post(BATCH, content=batch(), headers=headers, timeout=120).json()
    assert entry["size"] == size_mb * MIB
    assert guest.peak_memory_mb() - before < 40

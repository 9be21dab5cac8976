from __future__ import annotations

import os
import socket

import pytest

from tests.guest.workspace_calls import FILE, detail


def test_a_file_goes_in_and_comes_out(fs):
    entry = fs.write("deep/er/a.bin", b"\0\xff").json()
    path = fs.root / "deep/er/a.bin"
    assert entry == {
        "path": str(path),
        "name": "a.bin",
        "type": "file",
        "size": 2,
        "mtime_ms": path.stat().st_mtime_ns // 1_000_000,
    }
    answer = fs.read(path)
    assert answer.content == b"\0\xff"
    assert answer.headers["content-length"] == "2"
    assert answer.headers["content-type"] == "application/octet-stream"


def test_text_is_text_and_bytes_that_are_not_are_refused_with_a_hint(fs):
    fs.write("text", "grün\r\n".encode())
    answer = fs.read("text", format="text")
    assert answer.text == "grün\r\n"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    fs.write("binary", b"\xff")
    refused = fs.read("binary", format="text")
    assert refused.status_code == 415
    assert "format=bytes" in detail(refused)
    assert fs.read("text", format="pdf").status_code == 422


def test_an_empty_file_can_be_written_and_read(fs):
    assert fs.write("empty", b"").json()["size"] == 0
    assert fs.read("empty", format="text").text == ""


@pytest.mark.parametrize(
    ("header", "status", "content", "span"),
    [
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=5-99", 206, b"56789", "bytes 5-9/10"),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=1-2,4-5", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
    ],
)
def test_a_range_can_be_asked_for(fs, header, status, content, span):
    fs.write("digits", b"0123456789")
    params = {"path": "digits", "format": "bytes"}
    answer = fs.guest.http.get(FILE, params=params, headers={"Range": header})
    assert answer.status_code == status
    assert content is None or answer.content == content
    assert answer.headers.get("content-range") == span


def test_what_is_missing_or_no_file_is_told_apart(fs):
    fs.mkdir("directory")
    os.mkfifo(fs.root / "fifo")
    assert fs.read("missing").status_code == 404
    assert fs.read("no/such/file").status_code == 404
    assert fs.read("directory").status_code == 409
    assert fs.read("fifo").status_code == 409
    assert fs.write("directory").status_code == 409
    assert fs.write("fifo/below").status_code == 409
    assert fs.guest.http.get(FILE).status_code == 422
    assert fs.read("").status_code == 422
    assert fs.read("nul\0").status_code == 422
    assert fs.write("x" * 300).status_code == 422


def test_a_listing_goes_as_deep_as_asked(fs):
    for path in ("b/c/d", "a"):
        fs.write(path, b"123")

    def names(**more):
        return [(e["path"], e["type"]) for e in fs.get("list", ".", **more).json()]

    root = fs.root
    flat = [(f"{root}/a", "file"), (f"{root}/b", "dir")]
    assert names() == names(depth="") == flat
    assert names(depth=2) == [*flat, (f"{root}/b/c", "dir")]
    assert names(depth=9) == [*flat, (f"{root}/b/c", "dir"), (f"{root}/b/c/d", "file")]
    for depth in ("0", "-1", "x", "1.5"):
        assert fs.get("list", ".", depth=depth).status_code == 422


def test_a_listing_names_what_is_neither_file_nor_directory(fs):
    (fs.root / "link").symlink_to("/etc")
    (fs.root / "dangling").symlink_to("nowhere")
    (fs.root / os.fsdecode(b"\xff")).touch()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.relpath(fs.root / "socket"))
    found = {e["name"]: (e["type"], e["size"]) for e in fs.get("list", ".", depth=3).json()}
    assert found == {
        "link": ("symlink", None),
        "dangling": ("symlink", None),
        "socket": ("other", None),
        "\ufffd": ("file", 0),
    }


def test_listing_what_is_no_directory_is_refused(fs):
    fs.write("file")
    assert fs.get("list", "file").status_code == 409
    assert fs.get("list", "missing").status_code == 404


def test_existence_is_answered_for_files_and_directories(fs):
    fs.write("directory/file")
    for path, there in (
        ("directory", True),
        ("directory/file", True),
        (".", True),
        ("directory/file/below", False),
        ("missing/file", False),
    ):
        assert fs.get("exists", path).json() == {"exists": there}


def test_entries_are_removed_and_missing_ones_count_as_removed(fs):
    fs.write("directory/deep/file")
    (fs.root / "link").symlink_to("directory")
    for path in ("link", "directory", "directory", "missing/deep", "x/y/z"):
        assert fs.remove(path).status_code == 204
    assert list(fs.root.iterdir()) == []


def test_the_workspace_itself_is_neither_removed_nor_moved(fs):
    fs.write("kept")
    for path in (".", fs.root, f"{fs.root}/", "x/.."):
        assert fs.remove(path).status_code == 409
        assert fs.move(path, "below").status_code == 409
    assert fs.read("kept").content == b"new"


def test_moving_makes_parents_and_replaces_files_only(fs):
    fs.write("a", b"a")
    moved = fs.move("a", "new/parents/b").json()
    assert (moved["path"], moved["type"], moved["size"]) == (f"{fs.root}/new/parents/b", "file", 1)
    fs.write("c", b"c")
    assert fs.move("c", "new/parents/b").status_code == 200
    assert fs.read("new/parents/b").content == b"c"
    fs.write("d")
    assert fs.move("d", "new").status_code == 409
    assert fs.move("missing", "x").status_code == 404
    assert fs.move("new", "new/parents/into-itself").status_code == 409
    assert fs.move("new", "renamed").json()["type"] == "dir"


def test_moving_takes_the_link_and_not_what_it_points_to(fs):
    fs.write("target")
    (fs.root / "link").symlink_to("target")
    assert fs.move("link", "moved").json()["type"] == "symlink"
    assert (fs.root / "target").exists()


def test_making_a_directory_says_whether_it_was_new(fs):
    assert fs.mkdir("a/b/c").json() == {"created": True}
    assert fs.mkdir("a/b/c").json() == {"created": False}
    assert fs.mkdir(".").json() == {"created": False}
    fs.write("file")
    assert fs.mkdir("file").status_code == 409
    assert fs.mkdir("file/below").status_code == 409


def test_a_replaced_file_keeps_its_permissions(fs):
    fs.write("script", b"#!/bin/sh\necho old\n")
    (fs.root / "script").chmod(0o750)
    fs.write("script", b"#!/bin/sh\necho new\n")
    assert (fs.root / "script").stat().st_mode & 0o777 == 0o750
    assert fs.guest.shell("./script").stdout == "new\n"

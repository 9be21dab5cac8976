"""The files that a guest is bound to land together, in its workspace only."""

from __future__ import annotations

import json
import os

import pytest

from tests.guest.binding import BOUND, VALUE, bind, file
from tests.guest.running import names


def test_files_land_with_their_directories_and_permissions(start_guest):
    guest = start_guest()
    script = file("bin/deep/run", b"#!/bin/sh\necho ran\n", mode=0o750)
    binary, empty = file("a.bin", bytes(range(256))), file(f"{guest.workspace}/d/empty", mode=None)
    assert bind(guest, files=[script, binary, empty]).json() == BOUND
    assert names(guest.workspace) == ["a.bin", "bin", "bin/deep", "bin/deep/run", "d", "d/empty"]
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
    assert names(guest.workspace) == ["given", "kept"]


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
    before = names(unbound.workspace)
    answer = bind(unbound, {"KEY": VALUE}, [file("good/a", b"1"), file(path, b"2")])
    assert answer.status_code == 403
    assert path in answer.json()["detail"]
    assert names(unbound.workspace) == before
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
    assert names(unbound.workspace) == ["there"]
    assert unbound.shell("printenv KEY").failed


def test_a_refused_bind_leaves_the_guest_to_be_bound_to_other_content(start_guest):
    guest = start_guest()
    for files in ([file("a"), file("../b")], [file("a"), file("a/b")]):
        assert bind(guest, {"KEY": VALUE}, files).status_code in (403, 409)
    assert bind(guest, {"KEY": "other"}, [file("a")]).json() == BOUND
    assert guest.shell("printenv KEY").stdout == "other\n"
    assert names(guest.workspace) == ["a"]


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_keeps_every_file_out(start_guest):
    guest = start_guest()
    closed = guest.workspace / "closed"
    closed.mkdir(mode=0o555)
    assert bind(guest, files=[file("new/a"), file("closed/b")]).status_code == 403
    assert names(guest.workspace) == ["closed"]


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

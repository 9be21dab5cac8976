"""Paths and links: what stays in the workspace is followed, what leads out is refused."""

from __future__ import annotations

import threading

import pytest

from tests.guest.workspace_calls import detail


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "..", "../x", "a/../../x", "{root}2/x", "{root}/../x", "/"]
)
def test_a_path_outside_the_workspace_is_refused_everywhere(fs, path):
    path = path.format(root=fs.root)
    answers = [
        fs.read(path),
        fs.write(path),
        fs.get("list", path),
        fs.get("exists", path),
        fs.remove(path),
        fs.move(path, "inside"),
        fs.mkdir(path),
    ]
    fs.write("inside")
    answers.append(fs.move("inside", path))
    assert [answer.status_code for answer in answers] == [403] * 8
    assert all("outside the workspace" in detail(answer) for answer in answers)


@pytest.mark.parametrize("target", ["/", "/etc", "../..", "sub/../../.."])
def test_a_link_that_leads_outside_is_refused(fs, target):
    (fs.root / "sub").mkdir()
    (fs.root / "link").symlink_to(target)
    assert fs.read("link/passwd").status_code == 403
    assert fs.write("link/new").status_code == 403
    assert fs.get("list", "link").status_code == 403
    assert fs.mkdir("link/new").status_code == 403
    assert fs.remove("link/new").status_code == 403
    assert fs.move("sub", "link/new").status_code == 403
    assert fs.get("exists", "link/x").status_code == 403


def test_a_link_to_a_file_outside_is_neither_read_nor_written(fs, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("secret")
    (fs.root / "link").symlink_to(outside)
    assert fs.read("link").status_code == 403
    assert fs.write("link").status_code == 403
    assert outside.read_text() == "secret"
    assert fs.remove("link").status_code == 204
    assert outside.exists()


def test_links_inside_the_workspace_are_followed(fs):
    fs.write("real/file", b"1")
    (fs.root / "relative").symlink_to("real")
    (fs.root / "absolute").symlink_to(fs.root / "real")
    (fs.root / "real/up").symlink_to("../real/file")
    assert fs.read("relative/file").content == b"1"
    assert fs.read("absolute/up").content == b"1"
    fs.write("relative/up", b"2")
    assert (fs.root / "real/file").read_bytes() == b"2"
    assert (fs.root / "real/up").is_symlink()


def test_links_in_a_circle_are_refused(fs):
    (fs.root / "a").symlink_to("b")
    (fs.root / "b").symlink_to("a")
    assert fs.read("a").status_code == 409
    assert fs.get("exists", "a").json() == {"exists": False}


def test_a_link_that_is_swapped_all_the_time_never_leads_out(fs, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("outside")
    fs.write("inside/file", b"inside")
    swapped = fs.root / "swapped"
    done = threading.Event()

    def swap():
        other = fs.root / ".other"
        while not done.is_set():
            for target in ("inside", outside):
                other.symlink_to(target)
                other.rename(swapped)

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        read = [fs.read("swapped/file") for _ in range(150)]
        written = [fs.write("swapped/new") for _ in range(50)]
    finally:
        done.set()
        swapping.join()
    assert {answer.status_code for answer in read} <= {200, 403, 404, 409}
    assert {answer.content for answer in read if answer.status_code == 200} <= {b"inside"}
    assert {answer.status_code for answer in written} <= {200, 403, 404, 409}
    assert [entry.name for entry in outside.iterdir()] == ["file"]

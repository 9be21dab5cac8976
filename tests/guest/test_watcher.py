from __future__ import annotations

import subprocess

import pytest


@pytest.fixture
def history(guest, workspace):
    return History(guest)


class History:
    def __init__(self, guest):
        self.guest = guest
        self.root = guest.workspace

    def commit(self, **body):
        return self.guest.post("watcher/commit_changes", **body).json()

    def diff(self, **body):
        return self.guest.post("watcher/generate_diff", **body).json()["diffs"]

    def logs(self):
        return self.guest.http.get("/fastapi/watcher/git_logs").json()["logs"]


def test_the_first_commit_makes_the_repository(history):
    (history.root / "a").write_text("1\n")
    commit = history.commit(commit_message="first\n\nbody")
    assert commit["message"] == "first\n\nbody"
    head = subprocess.run(
        ["git", "-c", "safe.directory=*", "rev-parse", "HEAD"],
        cwd=history.root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert head.stdout.strip() == commit["commit"]


def test_the_message_has_a_default(history):
    (history.root / "a").touch()
    assert history.commit()["message"] == "Automated commit"


def test_nothing_to_commit_is_an_outcome_and_no_error(history):
    assert history.commit() == {"commit": None, "message": "nothing to commit"}
    (history.root / "a").touch()
    commit = history.commit()["commit"]
    assert history.commit() == {"commit": commit, "message": "nothing to commit"}


def test_uncommitted_changes_are_shown_with_untracked_files_and_left_alone(history):
    (history.root / "changed").write_text("1\n")
    (history.root / "gone").write_text("gone\n")
    history.commit()
    (history.root / "changed").write_text("2\n")
    (history.root / "gone").unlink()
    (history.root / "nëw file").write_text("new\n")
    for _ in range(2):
        diffs = history.diff(commit_a=None, commit_b=None)
        assert sorted(diffs) == ["changed", "gone", "nëw file"]
        assert diffs["changed"].endswith("@@ -1 +1 @@\n-1\n+2")
        assert "+new" in diffs["nëw file"]
        assert "-gone" in diffs["gone"]
    status = history.guest.shell("git -c safe.directory='*' status --short").stdout
    assert " M changed\n" in status
    assert "?? " in status


def test_before_any_commit_everything_is_a_change(history):
    assert history.diff() == {}
    (history.root / "a").write_text("1\n")
    assert list(history.diff()) == ["a"]


def test_two_commits_are_compared_in_the_order_given(history):
    (history.root / "a").write_text("old\n")
    first = history.commit()["commit"]
    (history.root / "a").write_text("new\n")
    second = history.commit()["commit"]
    assert "-old\n+new" in history.diff(commit_a=first, commit_b=second)["a"]
    assert "-new\n+old" in history.diff(commit_a=second[:10], commit_b="HEAD~1")["a"]


def test_binary_files_are_named_but_not_shown(history):
    (history.root / "b").write_bytes(b"\0\xff")
    assert history.diff()["b"].endswith("Binary files /dev/null and b/b differ")


def test_a_line_that_looks_like_a_header_does_not_confuse_the_parts(history):
    (history.root / "a").write_text("diff --git a/x b/x\n")
    (history.root / "b").write_text("b\n")
    diffs = history.diff()
    assert "+diff --git a/x b/x" in diffs["a"]
    assert "+b" in diffs["b"]


def test_logs_are_newest_first_with_the_diff_to_the_parent(history):
    assert history.logs() == []
    (history.root / "a").write_text("1\n")
    first = history.commit(commit_message="first")["commit"]
    (history.root / "a").write_text("2\n")
    second = history.commit(commit_message="second\nline")["commit"]
    logs = history.logs()
    assert [log["commit"] for log in logs] == [second, first]
    assert [log["message"] for log in logs] == ["second\nline", "first"]
    assert "-1\n+2" in logs[0]["diff"]["a"]
    assert "+1" in logs[1]["diff"]["a"]
    assert logs[0]["author"] == "Sandbox"
    assert logs[0]["date"].count("T") == 1


def test_one_commit_alone_is_refused(history):
    for body in ({"commit_a": "HEAD"}, {"commit_b": "HEAD"}, {"commit_a": "HEAD", "commit_b": ""}):
        answer = history.guest.post("watcher/generate_diff", **body)
        assert answer.status_code == 400
        assert "both" in answer.json()["detail"]


@pytest.mark.parametrize("revision", ["missing", "--output=/tmp/x", "-h", "HEAD:a", "a b"])
def test_what_is_no_commit_is_named_and_never_an_option(history, revision):
    (history.root / "a").touch()
    history.commit()
    body = {"commit_a": revision, "commit_b": "HEAD"}
    answer = history.guest.post("watcher/generate_diff", **body)
    assert answer.status_code == 404
    assert revision in answer.json()["detail"]


def test_the_users_own_settings_and_hooks_are_left_alone(history):
    (history.root / "a").touch()
    history.commit()
    hook = history.root / ".git/hooks/pre-commit"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    (history.root / "b").touch()
    assert history.commit()["message"] == "Automated commit"
    assert "user" not in (history.root / ".git/config").read_text()
    assert not (history.guest.home / ".gitconfig").exists()


def test_a_failing_git_is_told_in_its_own_words(history):
    (history.root / ".git").write_text("broken\n")
    answer = history.guest.post("watcher/commit_changes")
    assert answer.status_code == 409
    assert "git" in answer.json()["detail"]


def test_without_git_the_answer_says_so(start_guest, tmp_path):
    guest = start_guest(PATH=str(tmp_path))
    for answer in (
        guest.post("watcher/commit_changes"),
        guest.post("watcher/generate_diff"),
        guest.http.get("/fastapi/watcher/git_logs"),
    ):
        assert answer.status_code == 501
        assert "git is not installed" in answer.json()["detail"]

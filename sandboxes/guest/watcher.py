"""The workspace's history: git in the workspace itself, by its command line."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from . import processes
from .bodies import TEXT, Field, read_fields
from .config import Config
from .exchange import answer, unless_caller_leaves
from .workspace.uploads import UNFINISHED_GLOB

DIFF_LIMIT = 16 * 1024 * 1024
"""Bytes kept of one diff."""

MOST_LOGS = 500
"""Commits that git_logs answers, newest first; each costs a diff."""

SETTINGS = {
    "user.name": "Sandbox",
    "user.email": "sandbox@localhost",
    "commit.gpgSign": "false",
    "core.quotePath": "false",
    "advice.addEmbeddedRepo": "false",
    # A mounted workspace may belong to another uid; git would refuse to look at it.
    "safe.directory": "*",
}

DIFF_OPTIONS = ("--no-color", "--no-ext-diff", "--no-textconv", "--no-renames")


class Watcher:
    def __init__(self, config: Config) -> None:
        # git locks its index and fails instead of waiting.
        self._turn = asyncio.Lock()
        self.use(config)

    def use(self, config: Config) -> None:
        """Run git from now on in the environment of this config."""
        self._config = config
        self._env = _environment(config)

    async def commit_changes(self, request: Request) -> Response:
        fields = await read_fields(
            request, Field("commit_message", TEXT, default="Automated commit")
        )
        return await self._answer(request, self._commit(fields["commit_message"]))

    async def generate_diff(self, request: Request) -> Response:
        fields = await read_fields(
            request,
            Field("commit_a", TEXT, default=None, may_be_empty=True),
            Field("commit_b", TEXT, default=None, may_be_empty=True),
        )
        first, second = fields["commit_a"], fields["commit_b"]
        if bool(first) != bool(second):
            raise HTTPException(
                400, "Give both 'commit_a' and 'commit_b', or neither for uncommitted changes."
            )
        work = self._diff_commits(first, second) if first else self._diff_uncommitted()
        return await self._answer(request, work)

    async def git_logs(self, request: Request) -> Response:
        return await self._answer(request, self._logs())

    async def _answer(self, request: Request, work: Any) -> Response:
        async def in_turn() -> Any:
            async with self._turn:
                await self._prepare()
                return await work

        try:
            return answer(await unless_caller_leaves(request, in_turn()))
        finally:
            work.close()  # for the case that it never had its turn

    async def _prepare(self) -> None:
        if not shutil.which("git", path=self._env["PATH"]):
            raise HTTPException(
                501, "git is not installed in this sandbox; use an image that has it."
            )
        if not os.path.lexists(os.path.join(self._config.workspace, ".git")):
            await self._git("init", "--quiet", "--initial-branch=main")

    async def _commit(self, message: str) -> dict[str, Any]:
        await self._stage_everything()
        head = await self._head()
        staged = await self._run(["diff", "--cached", "--quiet", head or await self._empty_tree()])
        if staged.exit_code == 0:
            return {"commit": head, "message": "nothing to commit"}
        # --no-verify: a hook that a project brought along must not stop the snapshot.
        await self._git("commit", "--quiet", "--no-verify", "--message", message)
        return {"commit": await self._head(), "message": message}

    async def _diff_uncommitted(self) -> dict[str, Any]:
        """Compare the workspace, untracked files included, with the last commit."""
        base = await self._head() or await self._empty_tree()
        with tempfile.TemporaryDirectory(prefix="git-") as directory:
            # In a copy of the index, so that looking changes nothing.
            index = os.path.join(directory, "index")
            current = (await self._git("rev-parse", "--git-path", "index")).strip()
            current = os.path.join(self._config.workspace, current)
            if os.path.exists(current):
                # With its time: git believes an index that is newer than a file, and would miss
                # a change of the same size in the same second.
                await asyncio.to_thread(shutil.copy2, current, index)
            scratch = {"GIT_INDEX_FILE": index}
            await self._stage_everything(scratch)
            return {"diffs": await self._diffs(["--cached", base], scratch)}

    async def _diff_commits(self, first: str, second: str) -> dict[str, Any]:
        start, end = await self._commit_id(first), await self._commit_id(second)
        return {"diffs": await self._diffs([start, end])}

    async def _logs(self) -> dict[str, Any]:
        if await self._head() is None:
            return {"logs": []}
        layout = "%H%x00%P%x00%an%x00%cI%x00%B%x00"
        text = await self._git("log", "-z", f"--max-count={MOST_LOGS}", f"--format={layout}")
        fields = text.split("\0")
        logs = []
        for start in range(0, len(fields) - 5, 6):
            commit, parents, author, date, message = fields[start : start + 5]
            base = parents.split(" ")[0] or await self._empty_tree()
            logs.append(
                {
                    "commit": commit,
                    "author": author,
                    "date": date,
                    "message": message.strip(),
                    "diff": await self._diffs([base, commit]),
                }
            )
        return {"logs": logs}

    async def _diffs(
        self, revisions: list[str], more_env: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Return the diff of each changed file by its path."""
        options = ["diff", *DIFF_OPTIONS, *revisions, "--"]
        names = await self._git(*options[:1], "--name-only", "-z", *options[1:], env=more_env)
        paths = [name for name in names.split("\0") if name]
        if not paths:
            return {}
        patch = await self._git(*options, env=more_env)
        # Without renames each path has one part, in the same order. No line inside a part can
        # begin like this: there, every line begins with a sign.
        parts = re.split(r"^(?=diff --git )", patch, flags=re.MULTILINE)[1:]
        return dict(zip(paths, (part.rstrip("\n") for part in parts), strict=False))

    async def _stage_everything(self, more_env: Mapping[str, str] | None = None) -> None:
        unfinished = f":(exclude,glob)**/{UNFINISHED_GLOB}"
        await self._git("add", "--all", "--", ".", unfinished, env=more_env)

    async def _head(self) -> str | None:
        outcome = await self._run(["rev-parse", "--verify", "--quiet", "HEAD"])
        return outcome.stdout.text().strip() or None

    async def _empty_tree(self) -> str:
        return (await self._git("hash-object", "-t", "tree", "/dev/null")).strip()

    async def _commit_id(self, revision: str) -> str:
        outcome = await self._run(
            ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"]
        )
        # rev-parse prints the separator as well.
        found = outcome.stdout.text().split()
        if outcome.exit_code or not found:
            raise HTTPException(404, f"The workspace's history has no commit '{revision}'.")
        return found[-1]

    async def _git(self, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        """Run git and return its output; raises HTTPException 409 with git's own reason."""
        outcome = await self._run(list(arguments), env)
        if outcome.timed_out:
            raise HTTPException(409, f"git {arguments[0]} took longer than its limit.")
        if outcome.exit_code:
            reason = outcome.stderr.text().strip()[-1000:] or f"exit code {outcome.exit_code}"
            raise HTTPException(409, f"git {arguments[0]} failed: {reason}")
        return outcome.stdout.text()

    async def _run(
        self, arguments: list[str], env: Mapping[str, str] | None = None
    ) -> processes.Outcome:
        return await processes.run(
            ["git", *arguments],
            cwd=self._config.workspace,
            env={**self._env, **(env or {})},
            limit=self._config.call_limit,
            output_limit=DIFF_LIMIT,
        )


def _environment(config: Config) -> dict[str, str]:
    env = {name: value for name, value in config.child_env.items() if not name.startswith("GIT_")}
    env |= {
        "LC_ALL": "C.UTF-8",
        "GIT_TERMINAL_PROMPT": "0",
        # A repository above the workspace is none of ours.
        "GIT_CEILING_DIRECTORIES": os.path.dirname(config.workspace),
        "GIT_CONFIG_COUNT": str(len(SETTINGS)),
    }
    for number, (key, value) in enumerate(SETTINGS.items()):
        env |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return env

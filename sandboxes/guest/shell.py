"""run_shell_command: one command line, its output, its exit code."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from . import processes, results
from .bodies import NUMBER, TEXT, Field, read_fields
from .config import OUTPUT_LIMIT, Config
from .exchange import answer, unless_caller_leaves
from .plain import Plain, PlainCommands

LONGEST_ARGUMENT = 128 * 1024 - 1
"""Linux refuses a longer single argument, whatever ARG_MAX says (MAX_ARG_STRLEN)."""

NOT_STARTED = {errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.E2BIG, errno.ENOTDIR}
"""What exec says of a program that cannot be started, so that nothing of it has run."""


class Shell:
    def __init__(self, config: Config) -> None:
        self.use(config)

    def use(self, config: Config) -> None:
        """Run commands from now on in the environment of this config."""
        self._config = config
        self._program = _find_shell(config.child_env["PATH"])
        self._plain = PlainCommands(
            self._program,
            config.child_env,
            config.workspace,
            lambda command: self._run_in_shell(command, config.call_limit),
        )

    async def run_shell_command(self, request: Request) -> Response:
        fields = await read_fields(
            request,
            Field("command", TEXT),
            Field("timeout", NUMBER, default=None, above_zero=True),
        )
        limit = fields["timeout"] or self._config.call_limit
        call = self._run(fields["command"], limit)
        return answer(await unless_caller_leaves(request, call))

    async def _run(self, command: str, limit: float) -> dict[str, Any]:
        try:
            plain = self._plain.find(command)
            outcome = await self._run_directly(plain, limit) if plain else None
            if outcome is None:
                outcome = await self._run_in_shell(command, limit)
        except OSError as error:
            return results.failure(
                f"run_shell_command: {self._program} did not start: {error.strerror}."
            )
        stderr = outcome.stderr.text()
        if outcome.timed_out:
            stderr += (
                f"run_shell_command: timed out after {results.seconds(limit)}; the command and "
                "its children were ended. Start longer work in the background, or give a "
                "larger timeout.\n"
            )
        content = [results.text(outcome.stdout.text(), "stdout")]
        if stderr:
            content.append(results.text(stderr, "stderr"))
        content.append(results.text(str(outcome.exit_code), "returncode"))
        return results.result(content, failed=outcome.timed_out or outcome.exit_code != 0)

    async def _run_directly(self, plain: Plain, limit: float) -> processes.Outcome | None:
        try:
            return await self._run_program(
                plain.argv, limit, env=plain.env, executable=plain.program
            )
        except OSError as error:
            if error.errno in NOT_STARTED:
                return None
            raise

    async def _run_in_shell(self, command: str, limit: float) -> processes.Outcome:
        encoded = command.encode()
        if len(encoded) < LONGEST_ARGUMENT:
            return await self._run_program([self._program, "-c", command], limit)
        script = await _script(encoded)
        try:
            # The redirections apply to eval, after cat has read: the command itself sees
            # no open file, no variable and the same stdin as any other.
            argv = [self._program, "-c", 'eval "$(cat)" </dev/null']
            return await self._run_program(argv, limit, stdin=script)
        finally:
            os.close(script)

    async def _run_program(
        self,
        argv: list[str],
        limit: float,
        *,
        env: Mapping[str, str] | None = None,
        **more: Any,
    ) -> processes.Outcome:
        return await processes.run(
            argv,
            cwd=self._config.workspace,
            env=self._config.child_env if env is None else env,
            limit=limit,
            output_limit=OUTPUT_LIMIT,
            **more,
        )


def _find_shell(path: str) -> str:
    if os.access("/bin/bash", os.X_OK):
        return "/bin/bash"
    return shutil.which("bash", path=path) or "/bin/sh"


async def _script(content: bytes) -> int:
    """Return a file descriptor of a file in memory that holds the content."""

    def write() -> int:
        fd = os.memfd_create("command")
        with os.fdopen(fd, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    return await asyncio.to_thread(write)

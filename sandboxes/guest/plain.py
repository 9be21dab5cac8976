"""
Tell the command lines for which bash would only find one program and become it.

`bash -c 'ls -l'` does not fork: bash reads its locale and its tables, and calls exec. Starting
the program at once gives the same process, with the same arguments, environment and exit code,
for less than half of the CPU time. Whatever is not plain beyond doubt stays with bash, and so
does every program that cannot be started, because the error messages are bash's.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from .processes import Outcome

# No character of a bare word means anything to bash there. In quotes only ASCII is taken: bash
# gives some control characters, and bytes outside its locale, a treatment of its own.
NAME = r"[A-Za-z0-9_./][A-Za-z0-9_./+-]*"
ARGUMENT = r"""[A-Za-z0-9_./,:@%+=-]+|'[ -&(-~]*'|"[ !#%-\[\]-_a-~]*\""""
LINE = re.compile(rf"({NAME})((?:[ ](?:{ARGUMENT}))*)")
WORD = re.compile(ARGUMENT)

LONGEST_LINE = 4096

SYSTEM_DIRECTORY = "/bin"
"""Where the programs that stand in for builtins are; PATH may lead to a user's own instead."""

BUILTINS_WITH_A_TWIN: Mapping[str, Callable[[list[str]], bool]] = {
    "true": lambda arguments: not arguments,
    "false": lambda arguments: not arguments,
    # Options differ; escapes cannot occur outside of quotes and have to be looked for inside.
    "echo": lambda arguments: (
        not any(argument.startswith("-") or "\\" in argument for argument in arguments)
    ),
}


@dataclass(frozen=True, slots=True)
class Plain:
    """A program, by its path, with what bash would give to it."""

    program: str
    argv: list[str]
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Manner:
    """What this bash does with this environment, as it has shown itself."""

    own_names: frozenset[str]
    """Its builtins and keywords."""

    env: Mapping[str, str]
    """What its programs get, apart from `_`, which is the path of the program."""

    directory: tuple[int, int]
    """Device and inode of the working directory; PWD depends on them."""


class PlainCommands:
    """
    Knows nothing before learn(), and nothing for good where bash has to read settings first.

    run is called with a command line and runs it in bash.
    """

    def __init__(
        self,
        shell: str,
        env: Mapping[str, str],
        cwd: str,
        run: Callable[[str], Awaitable[Outcome]],
    ) -> None:
        self._cwd = cwd
        self._run = run
        self._path = env.get("PATH", "").split(os.pathsep)
        self._manner: Manner | None = None
        self._learning: asyncio.Task[None] | None = None
        self._possible = os.path.basename(shell) == "bash" and _is_simple(env, self._path)

    def find(self, command: str) -> Plain | None:
        """Return what to start instead of bash, or None."""
        if not self._possible or len(command) > LONGEST_LINE:
            return None
        line = LINE.fullmatch(command)
        if line is None:
            return None
        manner = self._manner
        if manner is None or manner.directory != _identity(self._cwd):
            self._start_learning()
            return None
        name = line[1]
        arguments = [word[1:-1] if word[0] in "'\"" else word for word in WORD.findall(line[2])]
        program = self._program(name, arguments, manner)
        if program is None:
            return None
        return Plain(program, [name, *arguments], {**manner.env, "_": program})

    def _program(self, name: str, arguments: list[str], manner: Manner) -> str | None:
        if name in manner.own_names:
            fits = BUILTINS_WITH_A_TWIN.get(name)
            if fits is None or not fits(arguments):
                return None
            program = f"{SYSTEM_DIRECTORY}/{name}"
            return program if _is_program(program) else None
        if "/" in name:
            return name if _is_program(os.path.join(self._cwd, name)) else None
        for directory in self._path:
            program = f"{directory}/{name}"
            if _is_program(program):
                return program
        return None

    def _start_learning(self) -> None:
        # Beside the call that asks, which goes to bash meanwhile and loses no time.
        if self._learning is None or self._learning.done():
            self._learning = asyncio.create_task(self._learn())

    async def _learn(self) -> None:
        directory = _identity(self._cwd)
        env_program = next(
            (f"{place}/env" for place in self._path if _is_program(f"{place}/env")), None
        )
        manner = None
        if directory is not None and env_program is not None:
            try:
                names = await self._run("compgen -bk")
                shown = await self._run("env -0")
            except OSError:
                return  # as would any command now; the next one tries again
            env = dict(
                entry.partition("=")[::2] for entry in shown.stdout.text().split("\0") if entry
            )
            # A warning at bash's start belongs into every answer, and so to bash.
            silent = not (names.stderr.raw() or shown.stderr.raw())
            ended_well = names.exit_code == shown.exit_code == 0
            intact = "\ufffd" not in shown.stdout.text() and not shown.stdout.bytes_cut
            if silent and ended_well and intact and env.pop("_", None) == env_program:
                own_names = frozenset(names.stdout.text().split())
                manner = Manner(own_names, env, directory)
        self._manner = manner
        self._possible = manner is not None


def _is_simple(env: Mapping[str, str], path: list[str]) -> bool:
    """Tell whether bash starts without settings, and PATH leads to the same place from anywhere."""
    settings = {"SHELLOPTS", "POSIXLY_CORRECT", "POSIX_PEDANTIC", "EXECIGNORE"}
    if any(name.startswith("BASH") or name in settings for name in env):
        return False
    return all(place.startswith("/") and place == os.path.normpath(place) for place in path)


def _is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _identity(directory: str) -> tuple[int, int] | None:
    try:
        found = os.stat(directory)
    except OSError:
        return None
    return found.st_dev, found.st_ino

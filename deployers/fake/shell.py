"""
A shell that plays its part: nothing is executed.

A command is a sequence of these, joined by ; or &&: `echo TEXT`, `sleep SECONDS`, `exit CODE`,
`printenv NAME`, `fail TEXT` (TEXT on stderr, code 1).
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Mapping


def play(
    command: str, *, env: Mapping[str, str], sleep: Callable[[float], object]
) -> tuple[str, str, int]:
    """Return standard output, standard error and exit code of a command."""
    stdout, stderr, code = "", "", 0
    for step in command.replace("&&", ";").split(";"):
        words = step.split(maxsplit=1)
        name, rest = [*words, "", ""][:2]
        with contextlib.suppress(ValueError):
            rest = " ".join(shlex.split(rest))
        if name == "echo":
            stdout += f"{rest}\n"
        elif name == "sleep":
            sleep(float(rest))
        elif name == "exit":
            return stdout, stderr, int(rest or 0)
        elif name == "printenv":
            value = env.get(rest)
            stdout, code = stdout + (f"{value}\n" if value else ""), int(value is None)
        elif name == "fail":
            return stdout, f"{rest}\n", 1
        elif name:
            return stdout, stderr + f"sh: {name}: not found\n", 127
    return stdout, stderr, code

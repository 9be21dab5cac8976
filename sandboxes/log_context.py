"""What every log line of a request carries: the request's id and its sandbox's name."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class LogContext:
    """One request's; shared by the tasks and threads that serve it."""

    request: str = ""
    sandbox: str = ""


current: ContextVar[LogContext | None] = ContextVar("log_context", default=None)


def note_sandbox(name: str) -> None:
    """Let the log lines of this request name its sandbox."""
    if context := current.get():
        context.sandbox = name

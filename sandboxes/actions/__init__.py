"""The verbs: each with who may do it and what it changes. Views, admin and commands call these."""

from __future__ import annotations

from sandboxes.actions.creating import create, create_many
from sandboxes.actions.finding import (
    ending_of,
    explain_silence,
    find,
    find_serving,
    find_type,
    status,
    type_exists,
)
from sandboxes.actions.halting import halt, resume
from sandboxes.actions.keeping import keep_alive, recycle, replacement_for, restore
from sandboxes.actions.releasing import cleanup, forget_files, release, stop_all

__all__ = [
    "cleanup",
    "create",
    "create_many",
    "ending_of",
    "explain_silence",
    "find",
    "find_serving",
    "find_type",
    "forget_files",
    "halt",
    "keep_alive",
    "recycle",
    "release",
    "replacement_for",
    "restore",
    "resume",
    "status",
    "stop_all",
    "type_exists",
]

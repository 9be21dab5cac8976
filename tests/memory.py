"""What a process remembers of its database, which each test has anew."""

from __future__ import annotations

from sandboxes import deployment, directory, pulling, tokens, wakeup
from sandboxes.actions import finding


def forget_all():
    """Let this process ask the database and the engine again for everything."""
    deployment.forget()
    tokens.forget()
    directory.clear()
    pulling.forget()
    wakeup.forget()
    finding.forget_types()

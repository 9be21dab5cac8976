"""The states of a sandbox, the ways between them, and why one ends: the machine as data."""

from __future__ import annotations

from django.db.models import TextChoices


class State(TextChoices):
    """
    Where a sandbox stands. Failing is a reason to stop, not a place to be.

    Every path therefore ends in STOPPED, after a removal that succeeded, and nothing leaks.
    """

    PENDING = "pending"
    """Wanted; nothing exists outside."""

    STARTING = "starting"
    """A worker is making it; things may exist outside."""

    WARM = "warm"
    """Healthy, lent to nobody."""

    RUNNING = "running"
    """Healthy and lent."""

    HALTING = "halting"
    """Lent; a worker is ending its processes, because its caller stopped it."""

    HALTED = "halted"
    """Lent, without processes: its files are kept until it is started or released."""

    RESUMING = "resuming"
    """Lent; a worker is starting it again, with its files."""

    STOPPING = "stopping"
    """No new calls; being removed."""

    STOPPED = "stopped"
    """The removal succeeded."""


class StopReason(TextChoices):
    """Why a sandbox ends; empty while it lives."""

    RELEASED = "released"
    EXPIRED = "expired"
    IDLE = "idle"
    OUTDATED = "outdated"
    SURPLUS = "surplus"
    FAILED = "failed"
    LOST = "lost"
    CLEANUP = "cleanup"
    ADMIN = "admin"


TRANSITIONS: dict[State, frozenset[State]] = {
    State.PENDING: frozenset({State.STARTING, State.STOPPING}),
    State.STARTING: frozenset({State.WARM, State.RUNNING, State.STOPPING}),
    State.WARM: frozenset({State.RUNNING, State.STOPPING}),
    State.RUNNING: frozenset({State.HALTING, State.STOPPING}),
    State.HALTING: frozenset({State.HALTED, State.STOPPING}),
    State.HALTED: frozenset({State.RESUMING, State.STOPPING}),
    State.RESUMING: frozenset({State.RUNNING, State.HALTING, State.STOPPING}),
    State.STOPPING: frozenset({State.STOPPED}),
    State.STOPPED: frozenset(),
}

ENDED = frozenset({State.STOPPING, State.STOPPED})
LIVE = frozenset(set(State) - ENDED)
UNFINISHED = frozenset(
    {State.PENDING, State.STARTING, State.HALTING, State.RESUMING, State.STOPPING}
)
"""A worker is at it and holds a lease; when that is over, the reaper finishes the step."""

OWNED = frozenset({State.RUNNING, State.HALTING, State.HALTED, State.RESUMING})
"""Lent to a caller."""


class StateConflict(Exception):
    """Another process moved this sandbox first; look at it again."""

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

    HALTED = "halted"
    """Lent, but its caller stopped it: its files are kept until it is started or released."""

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
    State.STARTING: frozenset({State.WARM, State.RUNNING, State.HALTED, State.STOPPING}),
    State.WARM: frozenset({State.RUNNING, State.STOPPING}),
    State.RUNNING: frozenset({State.HALTED, State.STOPPING}),
    State.HALTED: frozenset({State.STARTING, State.STOPPING}),
    State.STOPPING: frozenset({State.STOPPED}),
    State.STOPPED: frozenset(),
}

ENDED = frozenset({State.STOPPING, State.STOPPED})
LIVE = frozenset(set(State) - ENDED)


class StateConflict(Exception):
    """Another process moved this sandbox first; look at it again."""

"""What a deployer sees of a sandbox."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum


class Phase(StrEnum):
    """What a deployer can see of a sandbox. The database holds what is meant."""

    STARTING = "starting"
    READY = "ready"
    """Its process runs and its address is known; the guest may still be booting."""

    PAUSED = "paused"
    """Its processes are frozen by pause(); unpause() continues them."""

    STOPPED = "stopped"
    """Stopped by stop(); start() continues it with its files."""

    BROKEN = "broken"
    """It ended by itself, or only half of it is there; remove() clears it away, and start()
    puts a new one in its place."""

    ABSENT = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What one look at the infrastructure showed."""

    name: str
    phase: Phase
    url: str = ""
    """Where the guest server answers, e.g. http://172.18.0.2:80 or
    http+unix://%2Frun%2Fx.sock (path percent-encoded); empty unless the phase is READY or PAUSED."""

    address: str = ""
    """Its own address behind url, where the infrastructure tells of one: no other one's."""

    container_id: str = ""
    """The infrastructure's own id, if it has one."""

    exit_code: int | None = None
    detail: str = ""
    """Why it is BROKEN, in words, as far as the infrastructure tells."""

    started_at: datetime | None = None
    laps: tuple[tuple[str, float], ...] = ()
    """What start() did and how many seconds each took, where it made the sandbox: network, created,
    started, as far as they apply."""


class Laps:
    """Seconds of things that are done one after the other."""

    def __init__(self) -> None:
        self._taken: list[tuple[str, float]] = []
        self._last = time.monotonic()

    def note(self, name: str) -> None:
        """Let one thing end now, and the next begin."""
        now = time.monotonic()
        self._taken.append((name, now - self._last))
        self._last = now

    def added_to(self, seen: Observation) -> Observation:
        return replace(seen, laps=tuple(self._taken))

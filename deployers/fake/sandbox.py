"""What there is of one fake sandbox."""

from __future__ import annotations

import hashlib
import time
from datetime import datetime

from deployers.fake.freezing import FreezableGuest
from deployers.observation import Observation, Phase
from deployers.specs import SandboxSpec

HAS_PROCESSES = (Phase.READY, Phase.PAUSED)


class FakeSandbox:
    """One sandbox: what started it, its guest while it runs, and how it will end."""

    def __init__(self, spec: SandboxSpec) -> None:
        self.spec = spec
        self.container_id = hashlib.sha256(f"{spec.name}{time.monotonic_ns()}".encode()).hexdigest()
        self.files: dict[str, bytes] = {}
        self.lines: list[str] = []
        self.guest: FreezableGuest | None = None
        self.phase = Phase.STARTING
        self.exit_code: int | None = None
        self.detail = ""
        self.started_at: datetime | None = None
        self.dies_at: float | None = None
        self.vanishes_at: float | None = None

    def end(self, phase: Phase, *, exit_code: int | None = None, detail: str = "") -> None:
        if self.guest:
            self.guest.close()
        self.guest, self.phase, self.exit_code, self.detail = None, phase, exit_code, detail

    def pause(self) -> None:
        self.guest.thawed.clear()
        self.phase = Phase.PAUSED

    def unpause(self) -> None:
        self.guest.thawed.set()
        self.phase = Phase.READY

    def observe(self) -> Observation:
        return Observation(
            name=self.spec.name,
            phase=self.phase,
            url=self.guest.url if self.guest and self.phase in HAS_PROCESSES else "",
            container_id=self.container_id,
            exit_code=self.exit_code,
            detail=self.detail,
            started_at=self.started_at,
        )

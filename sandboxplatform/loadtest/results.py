"""What a run has measured: samples, failures by kind, and the rows they stand in."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TypeVar

from sandboxplatform.loadtest.connection import CallFailed

OURS, REFERENCE = "ours", "reference"
PERCENTILES = (50, 95, 99)

Result = TypeVar("Result")


@dataclass
class Series:
    """The samples of one kind of call to one server, in seconds; failed calls have no time."""

    seconds: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    """The first failure of each kind, in words."""

    elapsed: float | None = None
    """How long calls were made as fast as they went; None where none were."""

    async def time(self, call: Awaitable[Result]) -> Result | None:
        """Await one call; return its result, or None where it failed, which is counted."""
        begun = time.perf_counter()
        try:
            result = await call
        except CallFailed as error:
            self.fail(error)
            return None
        self.seconds.append(time.perf_counter() - begun)
        return result

    def fail(self, error: CallFailed) -> None:
        self.failures[error.kind] += 1
        self.examples.setdefault(error.kind, error.detail)

    @property
    def rate(self) -> float | None:
        """Answered calls per second."""
        return len(self.seconds) / self.elapsed if self.elapsed else None

    def milliseconds(self, percent: int) -> float | None:
        """Return a percentile by nearest rank: a sample, never something between two."""
        if not self.seconds:
            return None
        rank = math.ceil(len(self.seconds) * percent / 100) - 1
        return sorted(self.seconds)[max(rank, 0)] * 1000


@dataclass
class Row:
    """One line of the table."""

    name: str
    sides: dict[str, Series] = field(default_factory=dict)
    floor: str = ""
    """Name of the row that says what the machine itself takes."""

    plain: str = ""
    """Name of the row of the same without what this one has in addition."""

    per: str = "second"
    """What its rate is shown for: second or minute."""

    note: str = ""

    def of(self, side: str) -> Series:
        return self.sides.setdefault(side, Series())

    def milliseconds(self, percent: int, side: str = OURS) -> float | None:
        return self.sides[side].milliseconds(percent) if side in self.sides else None

    def rate(self, side: str = OURS) -> float | None:
        return self.sides[side].rate if side in self.sides else None


@dataclass
class Memory:
    """What something holds, in MB of 10^6 bytes, by side."""

    name: str
    megabytes: dict[str, float] = field(default_factory=dict)
    fits: dict[str, int] = field(default_factory=dict)
    """How many of them the memory that is free now has room for."""

    note: str = ""
    is_container: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """What a cold create up to its first result may take, on one kind of infrastructure."""

    ratio: float | None = None
    """Of the floor."""

    milliseconds: float | None = None


@dataclass
class Report:
    """Everything a run has found out so far."""

    machine: dict[str, object] = field(default_factory=dict)
    options: dict[str, object] = field(default_factory=dict)
    rows: dict[str, Row] = field(default_factory=dict)
    memory: dict[str, Memory] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    floor_limits: Limits | None = None
    interrupted: bool = False

    def row(self, name: str, **fields: str) -> Row:
        return self.rows.setdefault(name, Row(name, **fields))

    def holds(self, name: str) -> Memory:
        return self.memory.setdefault(name, Memory(name))

    @property
    def is_empty(self) -> bool:
        """Did no call to the server succeed?"""
        return not any(OURS in row.sides and row.sides[OURS].seconds for row in self.rows.values())

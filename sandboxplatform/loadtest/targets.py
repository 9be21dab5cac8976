"""What the platform promises, compared with what a run has measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sandboxplatform.loadtest import names
from sandboxplatform.loadtest.results import REFERENCE, Report

MARGIN_MS = 3.0
BESIDE_SLEEPERS_MS = 20.0
RELEASE_MS = 30.0
REFERENCE_TIMES = 3.0
IDLE_MB = 45.0
WORKER_MB = 120.0


@dataclass(frozen=True, slots=True)
class Target:
    """One promise; measured is None where this run cannot tell."""

    promise: str
    measured: float | None
    limit: float
    unit: str
    at_least: bool = False

    @property
    def is_met(self) -> bool | None:
        if self.measured is None:
            return None
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        promise = f"{self.promise} {sign} {self.limit:g} {self.unit}"
        if self.measured is None:
            return f"{promise}: not measured"
        return f"{promise}: {number(self.measured)} {'ok' if self.is_met else 'MISSED'}"


def number(value: float) -> str:
    """Write a figure with about three digits."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def _ratio(value: float | None, base: float | None) -> float | None:
    return value / base if value is not None and base else None


def _p50(report: Report, row: str) -> float | None:
    return report.rows[row].milliseconds(50) if row in report.rows else None


def targets(report: Report) -> Iterator[Target]:
    """Yield every promise that has a meaning for what the server's sandboxes run on."""
    first = _p50(report, names.FIRST)
    if limits := report.floor_limits:
        if limits.ratio:
            floor = _p50(report, report.rows[names.FIRST].floor)
            yield Target(f"{names.FIRST}, p50", _ratio(first, floor), limits.ratio, "× the floor")
        if limits.milliseconds:
            yield Target(f"{names.FIRST}, p50", first, limits.milliseconds, "ms")
    straight, through = _p50(report, names.SHELL_STRAIGHT), _p50(report, names.SHELL)
    cost = None if straight is None or through is None else through - straight
    yield Target("shell true through the server minus straight, p50", cost, MARGIN_MS, "ms")
    yield Target("release, p50", _p50(report, names.RELEASE), RELEASE_MS, "ms")
    sleepers = report.options.get("sleepers", 0)
    for name in (names.HEALTH, names.INFO):
        row = report.rows.get(beside := names.beside(name, sleepers))
        slow = row.milliseconds(95) if row else None
        yield Target(f"{beside}, p95", slow, BESIDE_SLEEPERS_MS, "ms")
    for clients in report.options.get("clients", ()):
        if clients > 1:
            row = report.rows.get(names.sustained(clients))
            times = _ratio(row.rate(), row.rate(REFERENCE)) if row else None
            what = f"calls/s at {clients} clients"
            yield Target(what, times, REFERENCE_TIMES, "× the reference", at_least=True)
    idle = report.memory.get(names.IDLE_SANDBOX)
    if idle and idle.is_container:
        yield Target(names.IDLE_SANDBOX, idle.megabytes.get("ours"), IDLE_MB, "MB")
    worker = report.memory.get(names.WORKER)
    held = worker.megabytes.get("ours") if worker else None
    yield Target(names.WORKER, held, WORKER_MB, "MB")

"""
How one sandbox came up, phase by phase: why was this one slow?

Kept on its row as {"kind": "warm" | "cold", "because": why it was cold, "phases":
[[name, milliseconds], …]}. The phases are, as far as they apply: queued, image, network, created,
started, guest ready (of the making), claimed, resumed, bound (of the lending), first call.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

WARM, COLD = "warm", "cold"

Percentiles = dict[str, dict[str, float]]


class Stopwatch:
    """Measure phases that follow each other; each ends where the next begins."""

    def __init__(self, timeline: dict[str, object]) -> None:
        self.timeline = timeline
        self._last = time.monotonic()

    def note(self, phase: str) -> None:
        """Let a phase end now."""
        now = time.monotonic()
        note(self.timeline, phase, now - self._last)
        self._last = now

    def note_laps(self, laps: Iterable[tuple[str, float]], whole: str) -> None:
        """Let a phase end now that had parts; whole is its name, and the last part's."""
        seconds = time.monotonic() - self._last
        parts = [(name, lap) for name, lap in laps if name != whole]
        for name, lap in parts:
            note(self.timeline, name, lap)
        # With what was done around them, so that the phases add up.
        note(self.timeline, whole, max(0.0, seconds - sum(lap for _, lap in parts)))
        self._last += seconds


def note(timeline: dict[str, object], phase: str, seconds: float) -> None:
    """Add a phase to a row's timeline."""
    timeline.setdefault("phases", []).append([phase, round(seconds * 1000, 1)])


def say_cold(timeline: dict[str, object], because: str) -> None:
    """Note that it was not lent from the pool, and why."""
    timeline |= {"kind": COLD, "because": because}


def say_warm(timeline: dict[str, object]) -> None:
    """Note that it was lent from the pool."""
    timeline["kind"] = WARM


def percentiles(timelines: Iterable[Mapping[str, object]]) -> Percentiles:
    """Return p50, p95 and count of each phase, in milliseconds."""
    by_phase: dict[str, list[float]] = {}
    for timeline in timelines:
        for phase, milliseconds in timeline.get("phases", ()):
            by_phase.setdefault(phase, []).append(milliseconds)
    return {phase: _summary(sorted(values)) for phase, values in by_phase.items()}


def _summary(values: list[float]) -> dict[str, float]:
    def at(share: float) -> float:
        return values[min(len(values) - 1, int(share * len(values)))]

    return {"count": len(values), "p50": at(0.5), "p95": at(0.95)}

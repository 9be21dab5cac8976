"""The table that a run ends with."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tests.chaos.explaining import Failure


@dataclass
class Report:
    """What a run did and found."""

    seed: int
    seconds: float
    kills: Counter[str] = field(default_factory=Counter)
    longest: dict[str, float] = field(default_factory=dict)
    caught: Counter[str] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    faults: list[Failure] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    settled: list[float] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)

    @property
    def is_good(self) -> bool:
        return not (self.faults or self.leaks or self.broken)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _longest(self, name: str) -> str:
        seconds = self.longest.get(name)
        return "" if seconds is None else f"whole again after {seconds:.1f} s at most"

    def _lines(self) -> list[str]:
        lines = [f"chaos, seed {self.seed}, {self.seconds:.0f} s"]
        lines += _section(
            f"kills: {self.kills.total()}",
            [(name, count, self._longest(name)) for name, count in sorted(self.kills.items())],
        )
        lines += _section(
            "sandboxes that a kill met in the middle of a step",
            [(state, count, "") for state, count in sorted(self.caught.items())],
        )
        lines += _section(
            f"operations: {self.operations.total()} done, {self.failed.total()} failed",
            [
                (name, count - self.failed[name], f"{self.failed[name]} failed")
                for name, count in sorted((self.operations + self.failed).items())
            ],
        )
        lines += _section(
            f"failures seen by clients: {self.failed.total()}, unexplained {len(self.faults)}",
            [(name, count, "") for name, count in sorted(self.classes.items())],
        )
        lines += [f"  UNEXPLAINED {fault}" for fault in self.faults]
        lines += _section(
            "sandboxes that ended", [(name, n, "") for name, n in sorted(self.ends.items())]
        )
        settled = ", ".join(f"{seconds:.1f} s" for seconds in self.settled)
        lines += ["", f"settled after {settled}"]
        lines += ["", f"promises broken: {len(self.broken)}", *(f"  {one}" for one in self.broken)]
        lines += ["", f"leaks: {len(self.leaks)}", *(f"  {one}" for one in self.leaks)]
        return lines


def _section(title: str, rows: list[tuple[str, int, str]]) -> list[str]:
    return ["", title, *(f"  {count:>6}  {name:<52} {rest}".rstrip() for name, count, rest in rows)]

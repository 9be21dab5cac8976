"""What a pass of the reaper found."""

from __future__ import annotations

from dataclasses import dataclass, field

ACTOR = "reaper"

QUESTIONS = ("expired", "idle", "abandoned", "unanswered", "lost", "orphans", "errors")
"""The fields of a Report that are lists of names."""


@dataclass
class Report:
    """What one pass found: names, by the question that found them."""

    expired: list[str] = field(default_factory=list)
    idle: list[str] = field(default_factory=list)
    abandoned: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    forgotten: int = 0
    errors: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.forgotten or any(getattr(self, question) for question in QUESTIONS))

    def __str__(self) -> str:
        counts = [f"{question} {len(getattr(self, question))}" for question in QUESTIONS]
        return ", ".join([*counts, f"forgotten {self.forgotten}"])

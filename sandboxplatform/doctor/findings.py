"""What a check can find, and what several findings of one check come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How it stands, least serious first."""

    SKIP = "skip"
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


SEVERITY = tuple(Status)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was seen; fix says what to change, and is empty where nothing is wrong."""

    status: Status
    text: str
    fix: str = ""


def ok(text: str) -> Finding:
    return Finding(Status.OK, text)


def skip(text: str) -> Finding:
    return Finding(Status.SKIP, text)


def warn(text: str, fix: str) -> Finding:
    return Finding(Status.WARN, text, fix)


def fail(text: str, fix: str) -> Finding:
    return Finding(Status.FAIL, text, fix)


@dataclass(frozen=True, slots=True)
class Result:
    """What one check came to, the most serious finding first."""

    name: str
    findings: Sequence[Finding]
    ms: float

    @property
    def status(self) -> Status:
        return max((each.status for each in self.findings), key=SEVERITY.index, default=Status.OK)

    @property
    def found(self) -> str:
        ordered = sorted(self.findings, key=lambda each: -SEVERITY.index(each.status))
        return "; ".join(" ".join(each.text.split()) for each in ordered)

    @property
    def fixes(self) -> list[str]:
        ordered = sorted(self.findings, key=lambda each: -SEVERITY.index(each.status))
        return [each.fix for each in ordered if each.fix]

"""Runs the checks one after the other: none stops the others, and each ends in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from django.db import connections

from sandboxplatform.doctor.findings import Finding, Result, Status, fail, skip
from sandboxplatform.doctor.redaction import Redaction
from sandboxplatform.doctor.subject import Subject


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check: look() yields what it finds, bit by bit."""

    name: str
    look: Callable[[Subject], Iterator[Finding]]
    needs: tuple[str, ...] = ()
    """Checks without whose success this one cannot say anything."""

    beside: tuple[str, ...] = ()
    """Checks that are run with it, and that may fail."""

    seconds: float | None = 15.0
    """Its time limit. None: its parts have limits of their own, and Ctrl-C must reach it, so it
    runs in the caller's thread."""


def choose(checks: Sequence[Check], names: Sequence[str]) -> list[Check]:
    """Return the checks of these names and those that go with them, in order; all for no name."""
    by_name = {check.name: check for check in checks}
    chosen: set[str] = set()
    waiting = list(names or by_name)
    while waiting:
        name = waiting.pop()
        chosen.add(name)
        waiting += {*by_name[name].needs, *by_name[name].beside} - chosen
    return [check for check in checks if check.name in chosen]


def examine(checks: Sequence[Check], subject: Subject) -> Iterator[Result]:
    """Yield each check's result as soon as it is there, without anything secret in it."""
    redact = Redaction(subject.platform)
    statuses: dict[str, Status] = {}
    for check in checks:
        begun = time.monotonic()
        findings = _lacking(check, statuses) or _look(check, subject)
        result = Result(
            check.name,
            [replace(each, text=redact(each.text), fix=redact(each.fix)) for each in findings],
            (time.monotonic() - begun) * 1000,
        )
        statuses[check.name] = result.status
        yield result


def _lacking(check: Check, statuses: dict[str, Status]) -> list[Finding]:
    for name in check.needs:
        status = statuses[name]
        if status in (Status.FAIL, Status.SKIP):
            return [
                skip(f"needs {name}, which {'failed' if status is Status.FAIL else 'was skipped'}")
            ]
    return []


def _look(check: Check, subject: Subject) -> list[Finding]:
    findings: list[Finding] = []
    if check.seconds is None:
        _collect(check, subject, findings)
        return findings

    def work() -> None:
        try:
            _collect(check, subject, findings)
        finally:
            connections.close_all()

    thread = threading.Thread(target=work, name=f"doctor-{check.name}", daemon=True)
    thread.start()
    thread.join(check.seconds)
    seen = list(findings)
    if thread.is_alive():
        seen.append(
            fail(
                f"no end within {check.seconds:g} s",
                "Something that it asked does not answer: a file system, a network address or an "
                "engine that hangs.",
            )
        )
    return seen


def _collect(check: Check, subject: Subject, findings: list[Finding]) -> None:
    try:
        # One by one: what was found before an error, or by the time limit, is kept.
        for finding in check.look(subject):
            findings.append(finding)
    except Exception as error:  # the outermost frame of a check: the others still have their turn
        findings.append(
            fail(
                f"the check itself broke: {type(error).__name__}: {error}",
                "This may be a fault of the doctor: report it with the output of --verbosity 2.",
            )
        )

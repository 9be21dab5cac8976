"""The clock of this machine, and how far those of the database and the engine are from it."""

from __future__ import annotations

import os
import time
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime

from django.db import DatabaseError, connection

from sandboxplatform.doctor.findings import Finding, fail, ok, warn
from sandboxplatform.doctor.subject import Subject

FAR_SECONDS, TOO_FAR_SECONDS = 2.0, 30.0
OLDEST = datetime(2025, 1, 1, tzinfo=UTC)
"""No clock that is right says less: this program is younger."""


def look(subject: Subject) -> Iterator[Finding]:
    yield judge_here(datetime.now(UTC))
    yield from _time_zone()
    yield from _database()
    if facts := subject.engine_facts:
        yield judge("the engine", (facts.time - facts.asked_at).total_seconds())


def judge_here(now: datetime) -> Finding:
    if now < OLDEST:
        return fail(
            f"this machine's clock says {now:%Y-%m-%d}",
            "Set it, and have it kept by NTP: `timedatectl set-ntp true`.",
        )
    return ok(f"{now:%Y-%m-%d %H:%M:%S} UTC")


def judge(whose: str, difference: float) -> Finding:
    """Judge how many seconds another clock is ahead of this machine's."""
    words = f"{whose} is {abs(difference):.1f} s {'ahead' if difference > 0 else 'behind'}"
    fix = (
        "Have both clocks kept by NTP (`timedatectl set-ntp true`): leases, token expiry and "
        "records compare times of several machines."
    )
    if abs(difference) > TOO_FAR_SECONDS:
        return fail(words, fix)
    if abs(difference) > FAR_SECONDS:
        return warn(words, fix)
    return ok(f"{whose} agrees")


def _time_zone() -> Iterator[Finding]:
    name = os.environ.get("TZ", "").removeprefix(":")
    # A name that begins otherwise is a rule (POSIX) or a file, which need no database of zones.
    if not name or "/" not in name or name.startswith("/"):
        return
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        yield warn(
            f"TZ names {name!r}, which is no time zone here, so that logs are in UTC",
            "Correct TZ, or install the package tzdata.",
        )


def _database() -> Iterator[Finding]:
    if connection.vendor == "sqlite":
        return
    try:
        with connection.cursor() as cursor:
            asked_at = time.time()
            cursor.execute("SELECT extract(epoch FROM clock_timestamp())")
            theirs = float(cursor.fetchone()[0])
    except DatabaseError:
        return  # the check of the database says why
    yield judge("the database", theirs - (asked_at + time.time()) / 2)

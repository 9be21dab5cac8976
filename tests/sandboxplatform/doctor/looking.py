"""Let the doctor look, and take what it found."""

from __future__ import annotations

from sandboxplatform.doctor.catalogue import CHECKS
from sandboxplatform.doctor.examination import choose, examine
from sandboxplatform.doctor.findings import Result


def examined(subject, *names):
    return {each.name: each for each in examine(choose(CHECKS, names), subject)}


def seen(check, *arguments):
    """Return what a check finds, joined to one result."""
    return Result("check", list(check(*arguments)), 0)

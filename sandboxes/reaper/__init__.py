"""One pass that removes what should no longer be there; two at once do no harm."""

from __future__ import annotations

import logging

from deployers.errors import DeployerError
from sandboxes.bookkeeping import DATABASE_AWAY
from sandboxes.reaper import comparing, leftovers, overdue
from sandboxes.reaper.report import QUESTIONS, Report

__all__ = ["QUESTIONS", "Report", "reap"]

logger = logging.getLogger(__name__)


def reap(*, dry_run: bool = False) -> Report:
    """Run one pass and return what it found (and, unless dry_run, removed)."""
    report = Report()
    for question in (
        overdue.expire,
        overdue.recycle,
        leftovers.take_over,
        leftovers.end_unanswered,
        comparing.compare,
        leftovers.give_back_ports,
        leftovers.close_builds,
        overdue.let_go_of_files,
        overdue.sweep_files,
        overdue.forget,
    ):
        try:
            question(report, dry_run=dry_run)
        except DeployerError as error:
            report.errors.append(str(error))
            logger.warning("The reaper could not look: %s", error)
        except DATABASE_AWAY:
            raise  # the next question would fail likewise
        except Exception as error:
            # One row that nobody thought of must not keep the other questions from being asked.
            report.errors.append(f"{question.__name__}: {error}")
            logger.exception("The reaper could not %s", question.__name__)
    return report

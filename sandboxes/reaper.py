"""One pass that removes what should no longer be there; two at once do no harm."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from deployers.base import Phase
from deployers.errors import DeployerError
from sandboxes import deployment, lifecycle
from sandboxes.models import Sandbox, Session
from sandboxes.models.sandbox import WORKER_LEASE
from sandboxes.states import State, StopReason

logger = logging.getLogger(__name__)

ACTOR = "reaper"


@dataclass
class Report:
    """What one pass found: names, by the question that found them."""

    abandoned: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    forgotten: int = 0
    errors: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.abandoned or self.lost or self.orphans or self.forgotten or self.errors)

    def __str__(self) -> str:
        return (
            f"abandoned {len(self.abandoned)}, lost {len(self.lost)}, orphans {len(self.orphans)}, "
            f"forgotten {self.forgotten}, errors {len(self.errors)}"
        )


def _take_over(dry_run: bool, report: Report) -> None:
    """Finish what a worker that died had begun."""
    with transaction.atomic():
        rows = list(Sandbox.objects.abandoned().select_for_update(skip_locked=True))
        report.abandoned += [sandbox.name for sandbox in rows]
        if dry_run:
            return
        # Taken by this pass, so that another one leaves them alone meanwhile.
        until = timezone.now() + WORKER_LEASE
        Sandbox.objects.filter(pk__in=[sandbox.pk for sandbox in rows]).update(worker_until=until)
    for sandbox in rows:
        lifecycle.stop(
            sandbox,
            reason=StopReason.FAILED,
            actor=ACTOR,
            detail="its worker ended before it was ready",
        )


def _compare(dry_run: bool, report: Report) -> None:
    """
    Ask the infrastructure first and the database second.

    Names are committed before they are started, so whatever the infrastructure showed must
    by then have a row; and a row that was live before the look must be in what it showed.
    """
    deployer = deployment.current()
    expected = list(
        Sandbox.objects.filter(
            state__in=(State.WARM, State.RUNNING, State.HALTED),
            deployer=deployment.current_name(),
        )
    )
    seen = {observation.name: observation for observation in deployer.inspect_all()}
    live = set(Sandbox.objects.exclude(state=State.STOPPED).values_list("name", flat=True))

    for name in seen.keys() - live:
        report.orphans.append(name)
        if not dry_run:
            logger.warning("Removing the orphan %s: it has no row", name)
            deployer.remove(name)
    for sandbox in expected:
        observation = seen.get(sandbox.name)
        ended = observation is None or observation.phase in (Phase.BROKEN, Phase.ABSENT)
        if not ended:
            continue
        report.lost.append(sandbox.name)
        if not dry_run:
            why = observation.detail if observation else "it is not there any more"
            lifecycle.stop(
                sandbox, reason=StopReason.LOST, actor=ACTOR, detail=why, unless_moved=True
            )


def _forget(dry_run: bool, report: Report) -> None:
    """Drop the records of what ended RELEASED_KEY_TTL seconds ago, and empty sessions."""
    seconds = settings.PLATFORM.RELEASED_KEY_TTL
    if not seconds:
        return
    age = timedelta(seconds=seconds)
    rows = Sandbox.objects.forgotten(age)
    if dry_run:
        report.forgotten = rows.count()
        return
    report.forgotten = rows.delete()[1].get("sandboxes.Sandbox", 0)
    Session.objects.filter(sandboxes=None, last_active_at__lt=timezone.now() - age).delete()


def reap(*, dry_run: bool = False) -> Report:
    """Run one pass and return what it found (and, unless dry_run, removed)."""
    report = Report()
    for question in (_take_over, _compare, _forget):
        try:
            question(dry_run, report)
        except DeployerError as error:
            report.errors.append(str(error))
            logger.warning("The reaper could not look: %s", error)
    return report

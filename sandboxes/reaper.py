"""One pass that removes what should no longer be there; two at once do no harm."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from deployers.base import Deployer, Phase
from deployers.errors import DeployerError
from sandboxes import deployment, ending
from sandboxes.models import ImageBuild, Sandbox, Session
from sandboxes.models.sandbox import lease_end
from sandboxes.states import State, StateConflict, StopReason

logger = logging.getLogger(__name__)

ACTOR = "reaper"
ABANDONED = "its worker ended on the way"


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
        taken = Sandbox.objects.filter(pk__in=[sandbox.pk for sandbox in rows])
        taken.update(worker_until=lease_end())
    for sandbox in rows:
        _finish(sandbox)


def _finish(sandbox: Sandbox) -> None:
    """Take an abandoned step to where it can be left; what was halted keeps its files."""
    if sandbox.state == State.RESUMING:
        sandbox.move_to(State.HALTING, actor=ACTOR, url="", detail=ABANDONED)
    if sandbox.state == State.HALTING:
        ending.finish_halt(sandbox, actor=ACTOR)
    else:
        ending.stop(sandbox, reason=StopReason.FAILED, actor=ACTOR, detail=ABANDONED)


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
            _remove_orphan(deployer, name, report)
    for sandbox in expected:
        observation = seen.get(sandbox.name)
        phase = observation.phase if observation else Phase.ABSENT
        if phase in (Phase.BROKEN, Phase.ABSENT):
            report.lost.append(sandbox.name)
            if not dry_run:
                why = observation.detail if observation else "it is not there any more"
                _give_up_lost(sandbox, why)
        elif sandbox.state == State.RUNNING and phase == Phase.STOPPED and not dry_run:
            _record_halt(sandbox)


def _remove_orphan(deployer: Deployer, name: str, report: Report) -> None:
    logger.warning("Removing the orphan %s: it has no row", name)
    try:
        deployer.remove(name)
    except DeployerError as error:
        # One that resists must not keep the others from being looked at.
        report.errors.append(f"{name}: {error}")


def _give_up_lost(sandbox: Sandbox, why: str) -> None:
    logger.warning("Sandbox %s is lost: %s", sandbox.name, why)
    ending.stop(sandbox, reason=StopReason.LOST, actor=ACTOR, detail=why, unless_moved=True)


def _record_halt(sandbox: Sandbox) -> None:
    """Write down that somebody stopped it outside, with its files kept."""
    try:
        sandbox.move_to(State.HALTING, actor=ACTOR, url="", detail="it was stopped outside")
        ending.finish_halt(sandbox, actor=ACTOR)
    except StateConflict:
        return


def _close_builds(dry_run: bool, report: Report) -> None:
    """Call failed what a builder that died left open."""
    if not dry_run:
        ImageBuild.objects.fail_abandoned()


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
    for question in (_take_over, _compare, _close_builds, _forget):
        try:
            question(dry_run, report)
        except DeployerError as error:
            report.errors.append(str(error))
            logger.warning("The reaper could not look: %s", error)
    return report

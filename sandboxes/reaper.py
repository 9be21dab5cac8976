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
from sandboxes import actions, deployment, ending, heartbeat, workers
from sandboxes.models import ImageBuild, Sandbox, Session
from sandboxes.models.sandbox import lease_end
from sandboxes.signals import sandbox_moved
from sandboxes.states import State, StateConflict, StopReason

logger = logging.getLogger(__name__)

ACTOR = "reaper"
ABANDONED = "its worker ended on the way"


@dataclass
class Report:
    """What one pass found: names, by the question that found them."""

    expired: list[str] = field(default_factory=list)
    idle: list[str] = field(default_factory=list)
    abandoned: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    forgotten: int = 0
    errors: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.forgotten or any(getattr(self, question) for question in QUESTIONS))

    def __str__(self) -> str:
        counts = [f"{question} {len(getattr(self, question))}" for question in QUESTIONS]
        return ", ".join([*counts, f"forgotten {self.forgotten}"])


QUESTIONS = ("expired", "idle", "abandoned", "lost", "orphans", "errors")
"""The fields of a Report that are lists of names."""


def _expire(dry_run: bool, report: Report) -> None:
    """End what has outlived its lifetime."""
    for sandbox in Sandbox.objects.expired():
        report.expired.append(sandbox.name)
        if not dry_run:
            ending.stop_soon(
                sandbox, reason=StopReason.EXPIRED, actor=ACTOR, detail="its lifetime is over"
            )


def _recycle(dry_run: bool, report: Report) -> None:
    """End what nobody has called for its idle limit; with a session the next touch restores it."""
    seconds = settings.PLATFORM.HEARTBEAT_TIMEOUT
    limit = timedelta(seconds=seconds) if seconds else None
    for sandbox in Sandbox.objects.idle(limit, grace=heartbeat.lag()):
        report.idle.append(sandbox.name)
        if not dry_run:
            actions.recycle(sandbox, actor=ACTOR)


def _take_over(dry_run: bool, report: Report) -> None:
    """Finish what a worker that died had begun."""
    with transaction.atomic():
        rows = Sandbox.objects.abandoned()
        report.abandoned += [sandbox.name for sandbox in rows]
        if dry_run:
            return
        # Taken by this pass, so that another one leaves them alone meanwhile.
        taken = Sandbox.objects.filter(pk__in=[sandbox.pk for sandbox in rows])
        taken.update(worker_until=lease_end(), worker=workers.current())
    for sandbox in rows:
        try:
            _finish(sandbox)
        except StateConflict:
            continue


def _finish(sandbox: Sandbox) -> None:
    """Take an abandoned step to where it can be left; what was halted keeps its files."""
    if sandbox.state == State.RESUMING:
        sandbox.move_to(State.HALTING, actor=ACTOR, url="", detail=ABANDONED)
    if sandbox.state == State.HALTING:
        ending.finish_halt(sandbox, actor=ACTOR)
    else:
        # Unless its worker was only slow, and has brought it up since.
        ending.stop(
            sandbox, reason=StopReason.FAILED, actor=ACTOR, detail=ABANDONED, unless_moved=True
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
    began = timezone.now()
    seen = {observation.name: observation for observation in deployer.inspect_all()}
    # What was removed during the look may have been seen in it.
    accounted = Sandbox.objects.exclude(state=State.STOPPED, stopped_at__lt=began)
    known = set(accounted.values_list("name", flat=True))

    for name in seen.keys() - known:
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
        elif dry_run:
            continue
        elif phase == Phase.PAUSED:
            _resume_forgotten(sandbox, deployer)
        elif observation.url and observation.url != sandbox.url:
            _note_address(sandbox, observation.url)


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


def _note_address(sandbox: Sandbox, url: str) -> None:
    """Write down that the infrastructure gave it another address: it was restarted outside."""
    same = Sandbox.objects.filter(pk=sandbox.pk, state=sandbox.state, url=sandbox.url)
    if sandbox.state != State.HALTED and same.update(url=url):
        logger.warning("Sandbox %s moved from %s to %s", sandbox.name, sandbox.url, url)
        sandbox_moved.send(Sandbox, sandbox=sandbox)


def _resume_forgotten(sandbox: Sandbox, deployer: Deployer) -> None:
    """
    Resume one that should not be frozen: who lent it, or froze it, died on the way.

    One that has been used was paused by somebody outside, who will have a reason.
    """
    awake = Sandbox.objects.filter(pk=sandbox.pk, frozen=False, first_used_at=None)
    if awake.filter(state__in=(State.WARM, State.RUNNING)).exists():
        logger.warning("Sandbox %s is paused and should not be; resuming it", sandbox.name)
        deployer.unpause(sandbox.name)


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


def _let_go_of_files(dry_run: bool, report: Report) -> None:
    """Restore no more what nobody touched for RECYCLED_KEY_TTL seconds, or has outlived its time."""
    seconds = settings.PLATFORM.RECYCLED_KEY_TTL
    age = timedelta(seconds=seconds) if seconds else None
    if not dry_run:
        Sandbox.objects.unclaimed_files(age).update(stop_reason=StopReason.EXPIRED)


def _sweep_files(dry_run: bool, report: Report) -> None:
    """Delete the files of what has ended for good since it was kept for a restoring."""
    kept = Sandbox.objects.restorable().values("pk")
    left = Sandbox.objects.filter(state=State.STOPPED, owns_workspace=True).exclude(pk__in=kept)
    for sandbox in [] if dry_run else left.exclude(workspace=""):
        try:
            ending.sweep_files(sandbox)
        except OSError as error:
            report.errors.append(f"{sandbox.name}: {error}")


def reap(*, dry_run: bool = False) -> Report:
    """Run one pass and return what it found (and, unless dry_run, removed)."""
    report = Report()
    for question in (
        _expire,
        _recycle,
        _take_over,
        _compare,
        _close_builds,
        _let_go_of_files,
        _sweep_files,
        _forget,
    ):
        try:
            question(dry_run, report)
        except DeployerError as error:
            report.errors.append(str(error))
            logger.warning("The reaper could not look: %s", error)
    return report

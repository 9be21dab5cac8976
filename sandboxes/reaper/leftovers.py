"""What processes that died have left behind."""

from __future__ import annotations

import logging

from django.db import transaction

from deployers.errors import DeployerError
from sandboxes import behind, build_check, ending, ports, steps, workers
from sandboxes.models import ImageBuild, Sandbox
from sandboxes.models.sandbox import lease_end
from sandboxes.reaper.report import ACTOR, Report
from sandboxes.states import State, StateConflict, StopReason

logger = logging.getLogger(__name__)

ABANDONED = "its worker ended on the way"
UNANSWERED = "the worker that lent it ended before its answer was out"


def take_over(report: Report, *, dry_run: bool) -> None:
    """Finish what a worker that died had begun."""
    rows: list[Sandbox] = []
    with steps.at(rows):
        with transaction.atomic():
            rows += Sandbox.objects.abandoned()
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
    """
    Take an abandoned step to where it can be left; what was halted keeps its files.

    Behind the pass, as an engine may take minutes: the lease says that somebody is at it.
    """
    if sandbox.state == State.RESUMING:
        sandbox.move_to(State.HALTING, actor=ACTOR, url="", detail=ABANDONED)
    if sandbox.state == State.HALTING:
        behind.submit(ending.finish_halt, sandbox, actor=ACTOR)
    else:
        # Unless its worker was only slow, and has brought it up since.
        ending.stop_soon(
            sandbox, reason=StopReason.FAILED, actor=ACTOR, detail=ABANDONED, unless_moved=True
        )


def end_unanswered(report: Report, *, dry_run: bool) -> None:
    """
    End what was lent by a worker that died before it could say so, and nobody has used since.

    Its caller has its name only if the answer went out in the last moment; then its first use
    brings it back, as it does for every sandbox that is lost before it.
    """
    for sandbox in Sandbox.objects.unanswered():
        report.unanswered.append(sandbox.name)
        if not dry_run and _end_unused(sandbox):
            behind.submit(ending.finish_stop, sandbox, actor=ACTOR)


@steps.step
def _end_unused(sandbox: Sandbox) -> bool:
    """Give one up that nobody has used; return whether it was so still."""
    with transaction.atomic():
        unused = Sandbox.objects.filter(pk=sandbox.pk, state=State.RUNNING, first_used_at=None)
        if not unused.select_for_update().exists():
            return False
        logger.warning("Ending %s: %s", sandbox.name, UNANSWERED)
        sandbox.move_to(State.STOPPING, actor=ACTOR, stop_reason=StopReason.LOST, detail=UNANSWERED)
    return True


def give_back_ports(report: Report, *, dry_run: bool) -> None:
    """End port leases that outlived their sandboxes."""
    if not dry_run and (count := ports.give_back_left()):
        logger.warning("Gave back %d ports of sandboxes that are gone", count)


def close_builds(report: Report, *, dry_run: bool) -> None:
    """Call failed what a builder that died left open, and remove the sandbox of its check."""
    if dry_run:
        return
    for build in ImageBuild.objects.abandoned().select_related("sandbox_type"):
        try:
            build_check.clear_up(build)
        except DeployerError as error:
            # The next build of the type tries again.
            report.errors.append(f"what the build {build.pk} left: {error}")
    ImageBuild.objects.fail_abandoned()

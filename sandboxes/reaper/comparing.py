"""Compare the sandboxes' table with what the infrastructure shows, and mend what differs."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable

from django.utils import timezone

from deployers.base import Deployer
from deployers.errors import DeployerError
from deployers.observation import Observation, Phase
from sandboxes import behind, binding, connections, deployment, ending, losing
from sandboxes.models import Sandbox
from sandboxes.reaper.report import ACTOR, Report
from sandboxes.signals import sandbox_moved
from sandboxes.states import State, StateConflict

logger = logging.getLogger(__name__)

_going: set[str] = set()
"""Orphans that this process is removing: they have no row to say so."""


def compare(report: Report, *, dry_run: bool) -> None:
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
    connections.let_go()
    seen = {observation.name: observation for observation in deployer.inspect_all()}
    # What was removed during the look may have been seen in it.
    accounted = Sandbox.objects.exclude(state=State.STOPPED, stopped_at__lt=began)
    known = set(accounted.values_list("name", flat=True))

    for name in seen.keys() - known - _going:
        report.orphans.append(name)
        if not dry_run:
            logger.warning("Removing the orphan %s: it has no row", name)
            _going.add(name)
            behind.submit(_remove_orphan, deployer, name)
    shared = _shared_addresses(seen.values())
    for sandbox in expected:
        observation = seen.get(sandbox.name)
        why = losing.why_lost(observation)
        if why is None and (observation.address or observation.url) in shared:
            why = _why_not_its_own(sandbox, observation)
        if why:
            report.lost.append(sandbox.name)
            if not dry_run:
                losing.give_up(sandbox, why, actor=ACTOR)
        elif not dry_run:
            try:
                _correct(sandbox, observation, deployer)
            except DeployerError as error:
                report.errors.append(f"{sandbox.name}: {error}")


def _remove_orphan(deployer: Deployer, name: str) -> None:
    try:
        deployer.remove(name)
    except DeployerError as error:
        logger.warning("The orphan %s is not removed yet: %s", name, error)
    finally:
        _going.discard(name)


def _shared_addresses(seen: Iterable[Observation]) -> set[str]:
    """
    Return the addresses that several sandboxes have.

    An engine that was killed and left its containers running may give one's to another.
    """
    counted = Counter(one.address or one.url for one in seen if one.url)
    return {address for address, count in counted.items() if count > 1}


def _why_not_its_own(sandbox: Sandbox, seen: Observation) -> str | None:
    if seen.url and binding.is_of_another(seen.url, sandbox.guest_secret):
        return f"its address {seen.address or seen.url} was given to another sandbox"
    return None


def _correct(sandbox: Sandbox, seen: Observation, deployer: Deployer) -> None:
    """Make row and infrastructure agree again about one that is there."""
    if sandbox.state == State.RUNNING and seen.phase == Phase.STOPPED:
        _record_halt(sandbox)
    elif seen.phase == Phase.PAUSED:
        _resume_forgotten(sandbox, deployer)
    elif seen.url and seen.url != sandbox.url:
        _note_address(sandbox, seen.url)


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
        behind.submit(ending.finish_halt, sandbox, actor=ACTOR)
    except StateConflict:
        return

"""Port leases: unique in the table, taken by insert and retry."""

from __future__ import annotations

import random

from django.conf import settings
from django.core.cache import BaseCache, caches
from django.db import IntegrityError, transaction

from sandboxes.models import PortLease, Sandbox
from sandboxes.room import when_there_is_room
from sandboxes.states import State, StateConflict

ATTEMPTS = 20

STRANGER_SECONDS = 60
"""How long a port that another program held is not tried again; by all workers, with Redis."""


class NoPortLeft(Exception):
    """PORT_RANGE has no free port; widen it or release sandboxes."""


def lease(sandbox: Sandbox) -> int:
    """
    Give the sandbox a port, as _lease_now() does.

    Where all are leased, wait a little for those of sandboxes that are being removed. Raise
    NoPortLeft, or StateConflict where the sandbox was ended meanwhile.
    """
    return when_there_is_room(
        lambda: _lease_now(sandbox),
        NoPortLeft,
        PortLease.objects.filter(sandbox__state=State.STOPPING).exists,
    )


def _lease_now(sandbox: Sandbox) -> int:
    """
    Give the sandbox a port of PORT_RANGE that no other sandbox has, and return it.

    One that has a port already, because it was halted, keeps it.
    """
    if kept := PortLease.objects.filter(sandbox=sandbox).first():
        return kept.port
    low, high = settings.PLATFORM.PORT_RANGE
    taken = set(PortLease.objects.values_list("port", flat=True))
    free = [port for port in range(low, high) if port not in taken]
    tried = random.sample(free, min(ATTEMPTS, len(free)))
    strangers = _notes().get_many([str(port) for port in tried])
    for port in tried:
        if str(port) in strangers:
            continue
        try:
            with transaction.atomic():
                _check_is_starting(sandbox)
                PortLease.objects.create(port=port, sandbox=sandbox)
        except IntegrityError:
            continue
        return port
    raise NoPortLeft(
        f"All {high - low} ports of PORT_RANGE [{low},{high}] are leased or held by other programs: "
        f"widen PORT_RANGE or release sandboxes."
    )


def _check_is_starting(sandbox: Sandbox) -> None:
    """Lock its row: one that has ended gave back what it had, and would keep this lease for ever."""
    mine = Sandbox.objects.select_for_update().filter(pk=sandbox.pk)
    if not mine.filter(state__in=(State.STARTING, State.RESUMING)).exists():
        raise StateConflict(f"{sandbox.name} was ended before it had a port.")


def give_to_stranger(sandbox: Sandbox, port: int) -> None:
    """End the lease of a port that another program listens on, and remember that it does."""
    _notes().set(str(port), True, STRANGER_SECONDS)
    give_back(sandbox)


def _notes() -> BaseCache:
    """Return where ports that strangers hold are noted, by number."""
    return caches["ports"]


def give_back_left() -> int:
    """End the leases of sandboxes that are gone, which should have none; return how many."""
    return PortLease.objects.filter(sandbox__state=State.STOPPED).delete()[0]


def give_back(sandbox: Sandbox) -> None:
    """End the sandbox's lease, if it has one."""
    PortLease.objects.filter(sandbox=sandbox).delete()

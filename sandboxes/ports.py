"""Port leases: unique in the table, taken by insert and retry."""

from __future__ import annotations

import random

from django.conf import settings
from django.db import IntegrityError, transaction

from sandboxes.models import PortLease, Sandbox

ATTEMPTS = 20


class NoPortLeft(Exception):
    """PORT_RANGE has no free port; widen it or release sandboxes."""


def lease(sandbox: Sandbox) -> int:
    """
    Give the sandbox a port of PORT_RANGE that no other sandbox has, and return it.

    One that has a port already, because it was halted, keeps it.
    """
    if kept := PortLease.objects.filter(sandbox=sandbox).first():
        return kept.port
    low, high = settings.PLATFORM.PORT_RANGE
    taken = set(PortLease.objects.values_list("port", flat=True))
    free = [port for port in range(low, high) if port not in taken]
    for port in random.sample(free, min(ATTEMPTS, len(free))):
        try:
            with transaction.atomic():
                PortLease.objects.create(port=port, sandbox=sandbox)
        except IntegrityError:
            continue
        return port
    raise NoPortLeft(
        f"All {high - low} ports of PORT_RANGE [{low},{high}] are leased: widen PORT_RANGE or "
        f"release sandboxes."
    )


def give_back(sandbox: Sandbox) -> None:
    """End the sandbox's lease, if it has one."""
    PortLease.objects.filter(sandbox=sandbox).delete()

"""Warm sandboxes that are paused while nobody needs them, where their pool wishes it."""

from __future__ import annotations

import logging

from deployers.base import Deployer
from deployers.errors import DeployerError
from pools.models import Pool
from sandboxes import deployment
from sandboxes.models import Sandbox
from sandboxes.states import State

logger = logging.getLogger(__name__)


def apply(pool: Pool) -> list[str]:
    """Pause warm ones where the pool wishes it, and resume them where it does so no more."""
    names = []
    for sandbox in Sandbox.objects.warm(pool.sandbox_type).filter(frozen=not pool.freeze):
        deployer = deployment.of(sandbox)
        if not deployer.supports_pause:
            break
        try:
            if _freeze_one(sandbox, deployer, frozen=pool.freeze):
                names.append(sandbox.name)
        except DeployerError as error:
            logger.warning("%s: %s", sandbox.name, error)
    return names


def _freeze_one(sandbox: Sandbox, deployer: Deployer, *, frozen: bool) -> bool:
    """
    Freeze or resume one, unless it is lent meanwhile; return whether that was done.

    The row says frozen before it is and until it is no more: whoever lends it resumes it.
    """
    warm = Sandbox.objects.filter(pk=sandbox.pk, state=State.WARM)
    if frozen:
        if not warm.update(frozen=True):
            return False
        try:
            deployer.pause(sandbox.name)
        except DeployerError:
            # It is tried again by the next pass.
            warm.update(frozen=False)
            raise
        if not warm.filter(frozen=True).exists():
            # Lent between the two: its borrower may have resumed it before it was paused.
            deployer.unpause(sandbox.name)
            return False
        return True
    deployer.unpause(sandbox.name)
    return bool(warm.update(frozen=False))

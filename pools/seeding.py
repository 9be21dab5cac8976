"""The pools that the settings ask for, as rows; what the admin makes of them later stays."""

from __future__ import annotations

from django.conf import settings

from pools.models import Pool
from sandboxes.models import SandboxType


def sync() -> None:
    """
    Make a pool for each default type, and apply a POOL_SIZE that was not applied before.

    A target that was changed at run time is kept until POOL_SIZE itself changes.
    """
    size = settings.PLATFORM.POOL_SIZE
    for kind in SandboxType.objects.filter(name__in=settings.PLATFORM.DEFAULT_SANDBOX_TYPE):
        pool, _ = Pool.objects.get_or_create(
            sandbox_type=kind, defaults={"target": size, "configured_target": size}
        )
        if pool.configured_target is None:
            # Made in the admin: what it wishes for was meant.
            Pool.objects.filter(pk=pool.pk).update(configured_target=size)
        elif pool.configured_target != size:
            target = size if pool.ceiling is None else min(size, pool.ceiling)
            Pool.objects.filter(pk=pool.pk).update(target=target, configured_target=size)

"""The pools that the settings ask for, as rows; what the admin makes of them later stays."""

from __future__ import annotations

from django.conf import settings
from django.db.models import Q

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
        changed = Pool.objects.filter(pk=pool.pk).filter(
            Q(configured_target=None) | ~Q(configured_target=size)
        )
        ceiling = pool.ceiling
        target = size if ceiling is None else min(size, ceiling)
        changed.update(target=target, configured_target=size)

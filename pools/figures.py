"""How a pool stands now, as our API shows it."""

from __future__ import annotations

from django.utils import timezone

from pools.models import COUNTS, Pool
from sandboxes import deployment
from sandboxes.models import Sandbox
from sandboxes.recipe import recipe_of


def record(pool: Pool) -> dict[str, object]:
    """Return a pool of with_figures() as our API shows it; times are unix seconds."""
    resting = pool.retry_at is not None and pool.retry_at > timezone.now()
    recipe = recipe_of(pool.sandbox_type, deployer=deployment.current_name())
    return {
        "sandbox_type": pool.sandbox_type.name,
        "target": pool.target,
        "ceiling": pool.ceiling,
        "paused": pool.paused,
        "freeze": pool.freeze,
        **{name: getattr(pool, name) for name in COUNTS},
        "outdated": Sandbox.objects.warm(pool.sandbox_type).exclude(recipe=recipe).count(),
        "failures": pool.failures,
        "last_error": pool.last_error or None,
        "retry_at": pool.retry_at.timestamp() if resting else None,
    }

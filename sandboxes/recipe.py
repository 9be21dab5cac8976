"""
What a sandbox of a type would be made of now, as a digest: warm ones with another are outdated.

The image's own id is not in it, because the engine alone knows where a tag points; the keeper
compares that beside it.
"""

from __future__ import annotations

import hashlib
import json

from django.conf import settings

from sandboxes import registry
from sandboxes.models import SandboxType


def recipe_of(kind: SandboxType, *, deployer: str) -> str:
    """Return the digest of all that a deployer is told about a sandbox of this type."""
    platform = settings.PLATFORM
    ingredients = {
        "deployer": deployer,
        "image": registry.image_of(kind.name, kind.image),
        "limits": [kind.cpus, kind.memory_mb, kind.processes],
        "timeout": kind.timeout_seconds or platform.RUNTIME_SANDBOX_TIMEOUT,
        "security": [kind.security_level, kind.network],
        "environment": kind.environment,
        "runtime_config": kind.runtime_config,
        "mounts": platform.READONLY_MOUNTS or {},
        "access_host": platform.SANDBOX_ACCESS_HOST,
    }
    text = json.dumps(ingredients, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()

"""What a deployer is told of a sandbox, from its row, its type and the settings."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings

from deployers.errors import UnsupportedSpec
from deployers.specs import Limits, Mount, Network, SandboxSpec, SecurityLevel
from sandboxes import deployment
from sandboxes.models import Sandbox


def spec_of(sandbox: Sandbox, *, host_port: int | None = None) -> SandboxSpec:
    """Write down for a deployer what this sandbox is to be."""
    kind = sandbox.sandbox_type
    return SandboxSpec(
        name=sandbox.name,
        image=sandbox.image,
        host_port=host_port,
        env={
            **kind.environment,
            **sandbox.environment,
            "SECRET_TOKEN": sandbox.guest_secret,
            "NGINX_TIMEOUT": str(sandbox.timeout_seconds),
        },
        labels={"io.sandboxplatform.type": kind.name},
        limits=Limits(cpus=kind.cpus, memory_mb=kind.memory_mb, processes=kind.processes),
        workspace=Path(sandbox.workspace) if sandbox.workspace else None,
        mounts=tuple(
            Mount(source=Path(source).absolute(), target=target)
            for source, target in (settings.PLATFORM.READONLY_MOUNTS or {}).items()
        ),
        security_level=SecurityLevel(kind.security_level),
        network=Network(kind.network) if kind.network else None,
        runtime_config=kind.runtime_config,
    )


def validate(sandbox: Sandbox) -> None:
    """Raise UnsupportedSpec before any row is written if the deployer cannot make this one."""
    deployer, kind = deployment.of(sandbox), sandbox.sandbox_type
    if not deployer.supports_images and not kind.runs_without_image:
        raise UnsupportedSpec(
            f"The type {kind.name!r} needs an image, and the {sandbox.deployer} deployer has none: "
            f"set CONTAINER_DEPLOYMENT=docker."
        )
    port = settings.PLATFORM.PORT_RANGE[0] if deployer.needs_host_port else None
    deployer.validate(spec_of(sandbox, host_port=port))

"""What a caller asks of a deployer: the sandbox it is to start."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

WORKSPACE = "/workspace"
"""Where every sandbox sees its workspace."""

NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""A DNS label (RFC 1123): valid as the name of a container, a pod and a directory alike."""


class SecurityLevel(StrEnum):
    """How tightly a sandbox is held; each deployer documents what a level means there."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Network(StrEnum):
    """What a sandbox may reach from inside."""

    NONE = "none"
    OUTBOUND = "outbound"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A directory of the host, shown to the sandbox."""

    source: Path
    target: str
    read_only: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Ceilings of one sandbox; None leaves the deployer's default."""

    cpus: float | None = None
    memory_mb: int | None = None
    processes: int | None = None
    file_size_mb: int | None = None
    """Largest single file a process may write, in MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSpec:
    """Everything a deployer may know about the sandbox it is to start."""

    name: str
    """Chosen by the caller and saved before the call; it is also the handle. At most 63
    characters, valid as a DNS label."""

    image: str
    guest_port: int = 80
    host_port: int | None = None
    """Set only for deployers with needs_host_port."""

    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Left out of repr() because it carries the sandbox's secret token."""

    labels: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    workspace: Path | None = None
    """A directory of the host, shown writable at /workspace; the deployer gives it to the
    sandbox's user. None: the workspace lives and dies with the sandbox."""

    mounts: tuple[Mount, ...] = ()
    security_level: SecurityLevel = SecurityLevel.MEDIUM
    network: Network | None = None
    """None: what this deployer gives by default."""

    runtime_config: Mapping[str, object] = field(default_factory=dict)
    """Deployer-specific settings of the sandbox type, checked by validate()."""

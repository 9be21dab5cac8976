"""
What a spec means to this deployer; refuses what it cannot mean.

Security levels: `low` allows user namespaces inside (Chromium's own sandbox wants them), `medium`
forbids them, `high` also forbids outbound network.

Settings of a sandbox type (runtime_config):

| key | meaning | default |
|---|---|---|
| `tmp_mb` | size of the private /tmp, in MiB | 256 |
| `shm_size` | size of /dev/shm: bytes, or text such as "128m" | 64m |
| `mem_limit` | memory ceiling, if the limits have none: bytes, or text such as "1g" | 1g |
| `nano_cpus` | CPU ceiling in billionths of a CPU, if the limits have none | none |
| `pids_limit` | ceiling of processes, if the limits have none | 256 |
| `private_networks` | with outbound network: may private address ranges be reached? | false |
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from deployers.errors import UnsupportedSpec
from deployers.specs import WORKSPACE, Network, SandboxSpec, SecurityLevel

MIB = 1024 * 1024
SETTINGS = ("mem_limit", "nano_cpus", "pids_limit", "private_networks", "shm_size", "tmp_mb")

DEFAULT_MEMORY_MB = 1024
DEFAULT_PROCESSES = 256
DEFAULT_FILE_SIZE_MB = 10 * 1024
DEFAULT_TMP_MB = 256
DEFAULT_SHM_MB = 64

RESERVED = ("/bin", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/opt/guest", "/proc")
RESERVED += ("/sbin", "/sys", "/usr")
"""Targets that a mount may neither hide nor change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A spec with every default filled in."""

    memory_mb: int
    processes: int
    file_size_mb: int
    cpus: float | None
    tmp_mb: int
    shm_mb: int
    network: Network
    private_networks: bool
    nested_namespaces: bool


def make_plan(spec: SandboxSpec) -> Plan:
    """Raise UnsupportedSpec, naming the field and what is allowed in it."""
    config = dict(spec.runtime_config)
    if unknown := sorted(config.keys() - set(SETTINGS)):
        raise UnsupportedSpec(
            f"runtime_config has {', '.join(unknown)}, which the local deployer does not know; "
            f"it knows {', '.join(SETTINGS)}."
        )
    _check_env(spec)
    for mount in spec.mounts:
        _check_target(mount.target)
    network = spec.network or Network.NONE
    if network is Network.OUTBOUND and spec.security_level is SecurityLevel.HIGH:
        raise UnsupportedSpec("Security level high allows no outbound network; use medium or low.")
    private = config.get("private_networks", False)
    if not isinstance(private, bool):
        raise UnsupportedSpec("runtime_config private_networks must be true or false.")
    limits = spec.limits
    nano_cpus = _whole(config, "nano_cpus", None)
    cpus = limits.cpus if limits.cpus is not None else nano_cpus and nano_cpus / 1e9
    memory_mb = limits.memory_mb
    if memory_mb is None:
        memory_mb = _mebibytes(config, "mem_limit", DEFAULT_MEMORY_MB)
    processes = limits.processes
    if processes is None:
        processes = _whole(config, "pids_limit", DEFAULT_PROCESSES)
    file_size_mb = DEFAULT_FILE_SIZE_MB if limits.file_size_mb is None else limits.file_size_mb
    given = {"cpus": cpus, "memory_mb": memory_mb, "processes": processes}
    for name, value in {**given, "file_size_mb": file_size_mb}.items():
        if value is not None and value <= 0:
            raise UnsupportedSpec(f"The limit {name} must be above 0, not {value}.")
    return Plan(
        memory_mb=memory_mb,
        processes=processes,
        file_size_mb=file_size_mb,
        cpus=cpus,
        tmp_mb=_whole(config, "tmp_mb", DEFAULT_TMP_MB),
        shm_mb=_mebibytes(config, "shm_size", DEFAULT_SHM_MB),
        network=network,
        private_networks=private,
        nested_namespaces=spec.security_level is SecurityLevel.LOW,
    )


def _check_env(spec: SandboxSpec) -> None:
    for name, value in spec.env.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise UnsupportedSpec(f"{name!r} cannot name an environment variable.")
        # bwrap takes its arguments divided by NUL: one in a value would begin a new argument.
        if "\0" in value:
            raise UnsupportedSpec(f"The environment variable {name} holds a NUL character.")


def _check_target(target: str) -> None:
    path = PurePosixPath(target)
    if not path.is_absolute() or ".." in path.parts or "\0" in target:
        raise UnsupportedSpec(f"The mount target {target!r} must be an absolute path without '..'.")
    hides = [WORKSPACE, "/tmp", *RESERVED]  # noqa: S108  # the sandbox's own /tmp
    if any(PurePosixPath(each).is_relative_to(path) for each in hides) or any(
        path.is_relative_to(each) for each in RESERVED
    ):
        raise UnsupportedSpec(
            f"The mount target {target} would hide or change a directory of the sandbox itself; "
            "use one such as /mnt/data."
        )


def _whole(config: dict[str, object], key: str, default: int | None) -> int | None:
    value = config.get(key, default)
    if value is default:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise UnsupportedSpec(f"runtime_config {key} must be a whole number above 0.")
    return value


def _mebibytes(config: dict[str, object], key: str, default: int) -> int:
    """Read a size as Docker writes it: bytes, or a number with the unit b, k, m or g."""
    if key not in config:
        return default
    size = re.fullmatch(r"(\d+)([bkmg]?)", str(config[key]).lower())
    count = int(size[1]) * 1024 ** "bkmg".index(size[2] or "b") if size else 0
    if count < MIB:
        raise UnsupportedSpec(f'runtime_config {key} must be a size such as "512m", 1m or more.')
    return count // MIB

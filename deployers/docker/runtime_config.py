"""
The runtime_config of a sandbox type: a checked subset of what Docker's run() takes.

mem_limit        "1g" or bytes          nano_cpus     billionths of a CPU
shm_size         "256m" or bytes        pids_limit    number of processes and threads
tmpfs            {path: options}        extra_hosts   {name: address}
dns              [address, …]           runtime       name of an engine runtime, e.g. "nvidia"
devices          ["/dev/kvm:/dev/kvm:rwm", …]; not with security level high
cap_add          ["SYS_PTRACE", …]; only with security level low
privileged       true; only with security level low

The limits of the spec (memory_mb, cpus, processes) win over the keys of the same meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from docker.errors import DockerException
from docker.utils import parse_bytes, parse_devices

from deployers.errors import UnsupportedSpec
from deployers.specs import SecurityLevel

CPU_PERIOD = 100_000

HostConfig = dict[str, object]


def memory(size: int) -> HostConfig:
    """Limit memory to size bytes; the same number for memory and swap means no swap."""
    return {"Memory": size, "MemorySwap": size}


def cpu(count: float) -> HostConfig:
    # Not NanoCpus: an engine refuses more of those than its machine has CPUs.
    return {"CpuPeriod": CPU_PERIOD, "CpuQuota": max(1000, round(count * CPU_PERIOD))}


def _size(value: object) -> int:
    size = parse_bytes(value) if isinstance(value, str) else value
    return _count(size)


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise ValueError("give a positive number")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("give true or false")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("give a text")
    return value


def _texts(value: object) -> list[str]:
    if not isinstance(value, list | tuple):
        raise ValueError("give a list of texts")
    return [_text(one) for one in value]


def _pairs(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(one, str) for one in value.values()):
        raise ValueError("give an object of texts")
    return {_text(key): one for key, one in value.items()}


_KEYS: dict[str, Callable[[object], HostConfig]] = {
    "mem_limit": lambda value: memory(_size(value)),
    "nano_cpus": lambda value: cpu(_count(value) / 1e9),
    "shm_size": lambda value: {"ShmSize": _size(value)},
    "pids_limit": lambda value: {"PidsLimit": _count(value)},
    "tmpfs": lambda value: {"Tmpfs": _pairs(value)},
    "extra_hosts": lambda value: {"ExtraHosts": [f"{k}:{v}" for k, v in _pairs(value).items()]},
    "dns": lambda value: {"Dns": _texts(value)},
    "runtime": lambda value: {"Runtime": _text(value)},
    "devices": lambda value: {"Devices": parse_devices(_texts(value))},
    "cap_add": lambda value: {"CapAdd": _texts(value)},
    "privileged": lambda value: {"Privileged": _flag(value)},
}

_LEVELS = {
    "devices": (SecurityLevel.LOW, SecurityLevel.MEDIUM),
    "cap_add": (SecurityLevel.LOW,),
    "privileged": (SecurityLevel.LOW,),
}


def parse_runtime_config(config: Mapping[str, object], level: SecurityLevel) -> HostConfig:
    """Return the part of the engine's HostConfig that it asks for, or raise UnsupportedSpec."""
    wanted: HostConfig = {}
    for key, value in config.items():
        if key not in _KEYS:
            raise UnsupportedSpec(
                f"runtime_config has no setting {key!r} for Docker; it knows {', '.join(_KEYS)}."
            )
        if level not in _LEVELS.get(key, tuple(SecurityLevel)):
            allowed = " or ".join(_LEVELS[key])
            raise UnsupportedSpec(
                f"runtime_config {key!r} needs security level {allowed}, and this is {level}."
            )
        try:
            wanted |= _KEYS[key](value)
        except (ValueError, DockerException) as error:
            raise UnsupportedSpec(f"runtime_config {key!r} cannot be {value!r}: {error}.") from None
    return wanted

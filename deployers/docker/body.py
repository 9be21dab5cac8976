"""
From a spec to the body of the engine's create call: pure functions, no engine.

What a security level means here:

low      Docker's default capabilities without NET_RAW; the image's user, root too.
medium   no capabilities, no gain of privileges by setuid programs, not root. An image without
         USER starts as root inside, with only ROOT_CAPABILITIES, because such images drop
         to other users by themselves.
high     medium, an image with a USER only, no way out of the network unless the spec gives it,
         a read-only file system (/tmp and /var/tmp are in memory, /workspace is writable),
         fewer processes.

On every level: Docker's seccomp profile, 1 GiB of memory and no swap, 2 CPUs, 512 processes
(high: 256) unless the limits say otherwise; an init that reaps; 10 MB of log; no core files.
"""

from __future__ import annotations

from deployers.docker.networks import GUEST_PORT_LABEL, INSTANCE_LABEL, NAME_LABEL
from deployers.docker.runtime_config import HostConfig, cpu, memory, parse_runtime_config
from deployers.specs import WORKSPACE, Limits, Network, SandboxSpec, SecurityLevel

MEMORY_MB = 1024
CPUS = 2.0
PROCESSES = {SecurityLevel.LOW: 512, SecurityLevel.MEDIUM: 512, SecurityLevel.HIGH: 256}
TMPFS = "rw,exec,nosuid,nodev,size=256m,mode=1777"

ROOT_CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID",
)  # fmt: skip


def network_of(spec: SandboxSpec) -> Network:
    if spec.network is not None:
        return spec.network
    return Network.NONE if spec.security_level is SecurityLevel.HIGH else Network.OUTBOUND


def container_body(
    spec: SandboxSpec,
    *,
    instance: str,
    network_id: str,
    user: str | None = None,
    is_root: bool = False,
    publish_at: str = "",
    runtime: str = "",
) -> dict[str, object]:
    """
    Return the body of POST /containers/create.

    user overrides the image's user; is_root says that the image has none. publish_at is the
    address at which spec.host_port is published, "" to publish nothing.
    """
    port = f"{spec.guest_port}/tcp"
    env = dict(spec.env)
    if user is not None or spec.security_level is SecurityLevel.HIGH:
        # The home directory of the image belongs to the image's user or cannot be written.
        env.setdefault("HOME", "/tmp")  # noqa: S108  # inside the sandbox
    labels = {
        **spec.labels,
        INSTANCE_LABEL: instance,
        NAME_LABEL: spec.name,
        GUEST_PORT_LABEL: str(spec.guest_port),
    }
    body: dict[str, object] = {
        "Image": spec.image,
        "Hostname": "sandbox",
        "Env": [f"{name}={value}" for name, value in env.items()],
        "Labels": labels,
        "ExposedPorts": {port: {}},
        "HostConfig": _host_config(spec, is_root=is_root, runtime=runtime)
        | {"NetworkMode": network_id},
    }
    if user is not None:
        body["User"] = user
    if publish_at:
        binding = {"HostIp": publish_at, "HostPort": str(spec.host_port)}
        body["HostConfig"]["PortBindings"] = {port: [binding]}
    return body


def _host_config(spec: SandboxSpec, *, is_root: bool, runtime: str) -> HostConfig:
    config: HostConfig = {
        "Init": True,
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "1"}},
        "PidsLimit": PROCESSES[spec.security_level],
        "Mounts": _mounts(spec),
        "Ulimits": _ceilings(spec.limits),
        **memory(MEMORY_MB << 20),
        **cpu(CPUS),
    }
    if runtime:
        config["Runtime"] = runtime
    config |= _confinement(spec.security_level, is_root=is_root)
    wanted = parse_runtime_config(spec.runtime_config, spec.security_level)
    tmpfs = {**config.pop("Tmpfs", {}), **wanted.pop("Tmpfs", {})}
    config |= wanted
    if tmpfs:
        config["Tmpfs"] = tmpfs
    if config.get("Privileged"):
        # Dropping capabilities of a privileged container would be ignored without a word.
        config.pop("CapDrop", None)
    return config | _limits(spec.limits)


def _confinement(level: SecurityLevel, *, is_root: bool) -> HostConfig:
    if level is SecurityLevel.LOW:
        return {"CapDrop": ["NET_RAW"]}
    config: HostConfig = {
        "CapDrop": ["ALL"],
        "CapAdd": list(ROOT_CAPABILITIES) if is_root else [],
        "SecurityOpt": ["no-new-privileges:true"],
    }
    if level is SecurityLevel.HIGH:
        config["ReadonlyRootfs"] = True
        config["Tmpfs"] = dict.fromkeys(("/tmp", "/var/tmp"), TMPFS)  # noqa: S108
    return config


def _limits(limits: Limits) -> HostConfig:
    config: HostConfig = {}
    if limits.memory_mb is not None:
        config |= memory(limits.memory_mb << 20)
    if limits.cpus is not None:
        config |= cpu(limits.cpus)
    if limits.processes is not None:
        config["PidsLimit"] = limits.processes
    return config


def _ceilings(limits: Limits) -> list[HostConfig]:
    # The number of open files stays the engine's own: more than it has itself it cannot give.
    ceilings = {"core": 0}
    if limits.file_size_mb is not None:
        ceilings["fsize"] = limits.file_size_mb << 20
    return [{"Name": name, "Soft": value, "Hard": value} for name, value in ceilings.items()]


def _mounts(spec: SandboxSpec) -> list[dict[str, object]]:
    mounts: list[dict[str, object]] = [
        {
            "Type": "bind",
            "Source": str(mount.source.absolute()),
            "Target": mount.target,
            "ReadOnly": mount.read_only,
        }
        for mount in spec.mounts
    ]
    if spec.workspace is not None:
        source = str(spec.workspace.absolute())
        mounts.append({"Type": "bind", "Source": source, "Target": WORKSPACE})
    elif spec.security_level is SecurityLevel.HIGH:
        # An anonymous volume takes the content and owner that the image has there, and goes
        # with the container.
        mounts.append({"Type": "volume", "Target": WORKSPACE})
    return mounts

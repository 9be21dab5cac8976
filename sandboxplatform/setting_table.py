"""
Every setting of the platform: its name, default, form and meaning.

The names are those of AgentScope Runtime's remote sandbox server. The README's table is
checked against SETTINGS.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandboxplatform import parsing
from sandboxplatform.parsing import Invalid, Parser

BASE_DIR = Path(__file__).resolve().parent.parent

DEPLOYMENTS = ("docker", "local", "fake")
PLANNED_DEPLOYMENTS = ("gvisor", "k8s", "agentrun", "fc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting: where it stands in the README's table, and how it is read."""

    name: str
    default: Any
    parse: Parser = parsing.text
    meaning: str
    secret: bool = False
    """Its value is never shown, not even in an error."""

    planned: bool = False
    """Its feature is not built yet: setting it to anything but the default is refused."""


def _cloud(prefix: str, what: str) -> list[Setting]:
    text, optional = parsing.text, None
    rows = [
        ("ACCOUNT_ID", "", text),
        ("ACCESS_KEY_ID", "", text),
        ("ACCESS_KEY_SECRET", "", text),
        ("REGION_ID", "cn-hangzhou", text),
        ("CPU", 2.0, parsing.number(0.1)),
        ("MEMORY", 2048, parsing.integer(128)),
        ("VPC_ID", optional, text),
        ("VSWITCH_IDS", optional, parsing.names),
        ("SECURITY_GROUP_ID", optional, text),
        ("PREFIX", "agentscope-sandbox", text),
        ("LOG_PROJECT", optional, text),
        ("LOG_STORE", optional, text),
    ]
    return [
        Setting(
            name=f"{prefix}_{suffix}",
            default=default,
            parse=parse,
            meaning=f"{what}: {suffix.lower().replace('_', ' ')}",
            secret=suffix.endswith("SECRET"),
            planned=True,
        )
        for suffix, default, parse in rows
    ]


def _deployment(value: str) -> str:
    lowered = value.strip().lower()
    if lowered in PLANNED_DEPLOYMENTS:
        raise Invalid(f"one of {', '.join(DEPLOYMENTS)}: {lowered} is not available yet")
    return parsing.one_of(*DEPLOYMENTS)(value)


_prefix = parsing.matching(
    r"[a-z][a-z0-9-]{0,37}", "at most 38 lower-case letters, digits and hyphens, a letter first"
)
_image_part = parsing.matching(r"[\w./:@-]*", "letters, digits and . / : @ _ - only")

SETTINGS: tuple[Setting, ...] = (
    Setting(name="HOST", default="127.0.0.1", meaning="address the server listens on"),
    Setting(
        name="PORT", default=8000, parse=parsing.integer(1, 65535), meaning="port it listens on"
    ),
    Setting(
        name="WORKERS",
        default=1,
        parse=parsing.integer(1, 512),
        meaning="web worker processes; more than one needs REDIS_ENABLED=True",
    ),
    Setting(
        name="DEBUG",
        default=False,
        parse=parsing.boolean,
        meaning="Django's debug pages and debug logs; never in production",
    ),
    Setting(
        name="BEARER_TOKEN",
        default="",
        parse=parsing.header_text,
        meaning="token that callers must send; empty is accepted on loopback addresses only",
        secret=True,
    ),
    Setting(
        name="ALLOW_ANONYMOUS",
        default=False,
        parse=parsing.boolean,
        meaning="serve callers without a token on other addresses than loopback",
    ),
    Setting(
        name="DEFAULT_SANDBOX_TYPE",
        default=["base"],
        parse=parsing.names,
        meaning=(
            "types that have a pool: one, a comma list or a JSON list; a create that names none "
            "gets the first"
        ),
    ),
    Setting(
        name="POOL_SIZE",
        default=1,
        parse=parsing.integer(0),
        meaning="warm sandboxes held ready for each default type; what the admin sets stays until this changes",
    ),
    Setting(
        name="AUTO_CLEANUP",
        default=True,
        parse=parsing.boolean,
        meaning="remove all sandboxes when the server closes; False: keep and adopt them",
    ),
    Setting(
        name="CONTAINER_PREFIX_KEY",
        default="agent-runtime-container-",
        parse=_prefix,
        meaning="prefix of every sandbox's name",
    ),
    Setting(
        name="CONTAINER_DEPLOYMENT",
        default=None,
        parse=_deployment,
        meaning="docker, local or fake; unset: docker where it can serve, else local",
    ),
    Setting(
        name="SANDBOX_ACCESS_HOST",
        default="",
        meaning=(
            "address at which sandboxes are reached through published ports, e.g. "
            "host.docker.internal; empty: the container's own address on a local engine"
        ),
    ),
    Setting(
        name="DEFAULT_MOUNT_DIR",
        default="sessions_mount_dir",
        meaning="folder in which each sandbox's workspace is kept on this host",
    ),
    Setting(
        name="READONLY_MOUNTS",
        default=None,
        parse=parsing.read_only_mounts,
        meaning="JSON object from host path to container path, mounted read-only everywhere",
    ),
    Setting(
        name="ALLOW_MOUNT_DIR",
        default=False,
        parse=parsing.boolean,
        meaning="let a create name its own mount_dir on this host",
    ),
    Setting(
        name="STORAGE_FOLDER",
        default=None,
        meaning="folder in the object store that workspaces are kept in",
        planned=True,
    ),
    Setting(
        name="PORT_RANGE",
        default=(49152, 59152),
        parse=parsing.port_range,
        meaning="host ports that may be leased to sandboxes, half-open",
    ),
    Setting(
        name="REDIS_ENABLED",
        default=False,
        parse=parsing.boolean,
        meaning="share look-ups between workers through Redis",
    ),
    Setting(name="REDIS_SERVER", default="localhost", meaning="Redis host"),
    Setting(name="REDIS_PORT", default=6379, parse=parsing.integer(1, 65535), meaning="Redis port"),
    Setting(name="REDIS_DB", default=0, parse=parsing.integer(0), meaning="Redis database"),
    Setting(name="REDIS_USER", default="", meaning="Redis ACL user"),
    Setting(name="REDIS_PASSWORD", default="", meaning="Redis password", secret=True),
    Setting(
        name="REDIS_PORT_KEY",
        default="_agent_runtime_container_occupied_ports",
        meaning="key prefix of port notes in Redis",
    ),
    Setting(
        name="REDIS_CONTAINER_POOL_KEY",
        default="_agent_runtime_container_container_pool",
        meaning="key prefix of sandbox look-ups in Redis",
    ),
    Setting(
        name="DATABASE_URL",
        default="",
        parse=parsing.database_url,
        meaning="PostgreSQL URL, e.g. postgres://user:password@host/name; empty: SQLite in DATA_DIR",
        secret=True,
    ),
    Setting(
        name="FILE_SYSTEM",
        default="local",
        parse=parsing.one_of("local", "oss"),
        meaning="where workspaces are kept between sandboxes: local or oss",
        planned=True,
    ),
    Setting(name="OSS_ENDPOINT", default="", meaning="object store address", planned=True),
    Setting(name="OSS_ACCESS_KEY_ID", default="", meaning="object store key", planned=True),
    Setting(
        name="OSS_ACCESS_KEY_SECRET",
        default="",
        meaning="object store secret",
        secret=True,
        planned=True,
    ),
    Setting(name="OSS_BUCKET_NAME", default="", meaning="object store bucket", planned=True),
    Setting(name="K8S_NAMESPACE", default="default", meaning="Kubernetes namespace", planned=True),
    Setting(name="KUBECONFIG_PATH", default=None, meaning="Kubernetes credentials", planned=True),
    *_cloud("AGENT_RUN", "Alibaba AgentRun"),
    *_cloud("FC", "Alibaba Function Compute"),
    Setting(
        name="HEARTBEAT_TIMEOUT",
        default=300,
        parse=parsing.integer(0),
        meaning=(
            "seconds without a call after which a session's sandboxes are recycled: removed, and "
            "restored with their files by the next call; 0 keeps them"
        ),
    ),
    Setting(
        name="HEARTBEAT_LOCK_TTL",
        default=120,
        parse=parsing.integer(1),
        meaning=(
            "seconds for which one process may hold a session while it recycles or restores it; "
            "as long as CREATE_TIMEOUT and 120 more in any case"
        ),
    ),
    Setting(
        name="WATCHER_SCAN_INTERVAL",
        default=1,
        parse=parsing.number(0),
        meaning="seconds between two passes of the reaper; 0 disables it",
    ),
    Setting(
        name="RELEASED_KEY_TTL",
        default=3600,
        parse=parsing.integer(0),
        meaning="seconds for which the records of ended sandboxes are kept; 0 keeps them",
    ),
    Setting(
        name="RECYCLED_KEY_TTL",
        default=604800,
        parse=parsing.integer(0),
        meaning="seconds for which the files of a recycled sandbox wait for a call; 0 keeps them",
    ),
    Setting(
        name="MAX_SANDBOX_INSTANCES",
        default=0,
        parse=parsing.integer(0),
        meaning="most sandboxes that may exist at once; 0 sets no cap",
    ),
    Setting(
        name="RUNTIME_SANDBOX_REGISTRY",
        default="",
        parse=_image_part,
        meaning="registry of the types' images; empty: Docker Hub",
    ),
    Setting(
        name="RUNTIME_SANDBOX_IMAGE_NAMESPACE",
        default="agentscope",
        parse=_image_part,
        meaning="namespace of the types' images",
    ),
    Setting(
        name="RUNTIME_SANDBOX_IMAGE_TAG",
        default="latest",
        parse=_image_part,
        meaning="tag of the types' images",
    ),
    Setting(
        name="RUNTIME_SANDBOX_TIMEOUT",
        default=60,
        parse=parsing.integer(1, 86400),
        meaning="seconds that one tool call may take, answer included",
    ),
    Setting(
        name="CREATE_TIMEOUT",
        default=55,
        parse=parsing.integer(1, 3600),
        meaning="seconds from a create to its answer, waiting in the queue included",
    ),
    Setting(
        name="SHUTDOWN_TIMEOUT",
        default=20,
        parse=parsing.integer(1, 3600),
        meaning="seconds that requests in flight may still take when the server closes",
    ),
    Setting(
        name="DATA_DIR",
        default=str(BASE_DIR / "var"),
        meaning="folder of the SQLite database, the secret key and the local deployer's state",
    ),
    Setting(
        name="SECRET_KEY",
        default="",
        meaning="Django's signing key; empty: one is made and kept in DATA_DIR",
        secret=True,
    ),
    Setting(
        name="ALLOWED_HOSTS",
        default=None,
        parse=parsing.names,
        meaning=(
            "host names that the server answers to; unset: every one, but loopback names only "
            "where no token is needed"
        ),
    ),
    Setting(
        name="LOG_LEVEL",
        default="INFO",
        parse=lambda value: parsing.one_of("debug", "info", "warning", "error", "critical")(
            value
        ).upper(),
        meaning="least serious level that is logged",
    ),
    Setting(
        name="LOG_FORMAT",
        default="text",
        parse=parsing.one_of("text", "json"),
        meaning="log lines for people (text) or for machines (json)",
    ),
)

BY_NAME = {setting.name: setting for setting in SETTINGS}

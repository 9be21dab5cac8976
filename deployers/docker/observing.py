"""From the engine's answers to Observations: pure functions, no engine."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from deployers.docker.networks import GUEST_PORT_LABEL, INSTANCE_LABEL, NAME_LABEL
from deployers.observation import Observation, Phase

STOPPED_ON_PURPOSE = "unless-stopped"
"""
The restart policy that stop() gives, by which STOPPED is told from BROKEN.

An exited container looks the same however it came to its end, and a restart policy is one of
the few things that can be changed on an existing one. This one fits the meaning: the engine
does not start again what was stopped through it, not even when the machine boots. start()
takes it away again.
"""

RUN_ONCE = "no"

STARTING_FOR = timedelta(seconds=90)
"""Longer than start() can take between create and start; an older one was abandoned."""

_NEVER = "0001-01-01"
"""How the engine says that something has not happened."""

_PHASES = {"running": Phase.READY, "paused": Phase.PAUSED}
"""Of what has processes; whoever paused it, it is paused."""

Answer = Mapping[str, object]


def is_ours(found: Answer, instance: str, name: str) -> bool:
    """Tell a sandbox of ours from strangers, and from a container whose id begins like name."""
    labels = found["Config"]["Labels"] or {}
    return labels.get(INSTANCE_LABEL) == instance and labels.get(NAME_LABEL) == name


def is_marked_stopped(found: Answer) -> bool:
    return found["HostConfig"]["RestartPolicy"]["Name"] == STOPPED_ON_PURPOSE


def observe(found: Answer, *, access_host: str) -> Observation:
    """Judge an answer of GET /containers/{id}/json."""
    state = found["State"]
    labels = found["Config"]["Labels"]
    url = ""
    detail = ""
    exit_code = None
    status = state["Status"]
    if status in _PHASES:
        published = found["HostConfig"].get("PortBindings") or {}
        ports = [binding["HostPort"] for bindings in published.values() for binding in bindings]
        url = _url(found["NetworkSettings"], ports, labels[GUEST_PORT_LABEL], access_host)
        phase, detail = (_PHASES[status], "") if url else (Phase.BROKEN, _NO_ADDRESS)
    elif status == "restarting" or _is_being_started(found):
        phase = Phase.STARTING
    elif status == "exited" and is_marked_stopped(found):
        phase = Phase.STOPPED
    else:
        phase = Phase.BROKEN
        exit_code = state["ExitCode"] if status in ("exited", "dead") else None
        detail = _reason(found, status)
    return Observation(
        name=labels[NAME_LABEL],
        phase=phase,
        url=url,
        address=_address(found["NetworkSettings"]),
        container_id=found["Id"],
        exit_code=exit_code,
        detail=detail,
        started_at=parse_time(state["StartedAt"]),
    )


def observe_listed(found: Answer, *, access_host: str) -> Observation | None:
    """Judge one entry of GET /containers/json; None if it says too little and needs a look."""
    phase = _PHASES.get(found["State"])
    if phase is None:
        return None
    labels = found["Labels"]
    ports = [str(port["PublicPort"]) for port in found["Ports"] if port.get("PublicPort")]
    url = _url(found["NetworkSettings"], ports, labels[GUEST_PORT_LABEL], access_host)
    if not url:
        return None
    return Observation(
        name=labels[NAME_LABEL],
        phase=phase,
        url=url,
        address=_address(found["NetworkSettings"]),
        container_id=found["Id"],
        started_at=datetime.fromtimestamp(found["Created"], UTC),
    )


def parse_time(text: str) -> datetime | None:
    return None if text.startswith(_NEVER) else datetime.fromisoformat(text)


_NO_ADDRESS = "It runs, but it is no longer connected to its network."


def _url(networking: Answer, ports: list[str], guest_port: str, access_host: str) -> str:
    if ports:
        return f"http://{access_host}:{ports[0]}"
    address = _address(networking)
    return f"http://{address}:{guest_port}" if address else ""


def _address(networking: Answer) -> str:
    addresses = [one["IPAddress"] for one in networking["Networks"].values() if one["IPAddress"]]
    return addresses[0] if addresses else ""


def _is_being_started(found: Answer) -> bool:
    age = datetime.now(UTC) - datetime.fromisoformat(found["Created"])
    state = found["State"]
    return state["Status"] == "created" and not state["Error"] and age < STARTING_FOR


def _reason(found: Answer, status: str) -> str:
    state = found["State"]
    if status == "created":
        return f"It was created but never started. {state['Error']}".strip()
    if status == "removing":
        return "It is being removed."
    code = state["ExitCode"]
    said = f"It ended by itself with exit code {code}{_meaning(code)}."
    if state["OOMKilled"]:
        limit = found["HostConfig"]["Memory"] >> 20
        said += (
            f" The kernel killed a process of it: out of memory (limit {limit} MB). "
            "Raise the memory of the sandbox type."
        )
    if state["Error"]:
        said += f" Docker says: {state['Error']}."
    return said


def _meaning(code: int) -> str:
    if code == 127:
        return " (its command was not found)"
    if code == 126:
        return " (its command cannot be executed)"
    try:
        return f" ({signal.Signals(code - 128).name})" if code > 128 else ""
    except ValueError:
        return ""

"""How a sandbox looks on the wire: the record of get_info."""

from __future__ import annotations

from datetime import datetime
from urllib.parse import urlsplit

from sandboxes.models import Sandbox
from sandboxes.states import State, StopReason

_STATES = {
    State.PENDING: "warm",
    State.STARTING: "warm",
    State.WARM: "warm",
    State.RUNNING: "running",
    State.HALTING: "running",
    State.RESUMING: "running",
    State.HALTED: "running",
    State.STOPPING: "released",
    State.STOPPED: "released",
}
_ERRORS = (StopReason.FAILED, StopReason.LOST)


def _seconds(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None


def wire_state(sandbox: Sandbox) -> str:
    """Return the wire's word, which is derived from our state and stop reason."""
    if sandbox.replaced_by_id:
        return "replaced"
    if sandbox.stop_reason == StopReason.IDLE and sandbox.can_be_restored:
        return "recycled"
    if sandbox.stop_reason in _ERRORS:
        return "error"
    return _STATES[State(sandbox.state)]


def record(sandbox: Sandbox) -> dict[str, object]:
    """Return the get_info record; times are unix seconds."""
    port = urlsplit(sandbox.url).port if sandbox.url.startswith("http:") else None
    session = sandbox.session
    was_idle = sandbox.stop_reason == StopReason.IDLE
    ended_at = _seconds(sandbox.stopped_at)
    last_active = session.last_active_at if session else sandbox.last_used_at
    return {
        "session_id": sandbox.key,
        "container_id": sandbox.container_id or sandbox.name,
        "container_name": sandbox.name,
        "url": sandbox.url,
        "ports": [port] if port else [],
        "mount_dir": sandbox.workspace or None,
        "storage_path": None,
        "runtime_token": sandbox.desktop_credential,
        "version": sandbox.image,
        "meta": sandbox.meta,
        "timeout": sandbox.timeout_seconds,
        "sandbox_type": sandbox.sandbox_type.name,
        "state": wire_state(sandbox),
        "session_ctx_id": session.key if session else None,
        "last_active_at": _seconds(last_active),
        "recycled_at": ended_at if was_idle else None,
        "released_at": None if was_idle else ended_at,
        "updated_at": _seconds(sandbox.updated_at),
        "recycle_reason": sandbox.detail if was_idle else None,
        "redirect_to": sandbox.replaced_by.name if sandbox.replaced_by else None,
    }

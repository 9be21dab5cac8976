"""What a caller asks for with a create, checked before any row is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import PurePosixPath

from sandboxes.binding import File
from sandboxes.environment import check_environment
from sandboxes.models import SandboxType
from sandboxes.refusals import Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One create; what it leaves open is as the type has it."""

    session_key: str = ""
    meta: Mapping[str, object] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    labels: Mapping[str, str] = field(default_factory=dict)
    files: tuple[File, ...] = field(default=(), repr=False)
    mount_dir: str | None = None
    lifetime: timedelta | None = None
    idle_limit: timedelta | None = None

    def check(self, kind: SandboxType) -> None:
        """Raise Refused, naming the field, for what no sandbox of the type can be given."""
        try:
            check_environment(dict(self.environment))
        except ValueError as error:
            raise Refused(str(error), field="environment") from None
        for file in self.files:
            path = PurePosixPath(file.path)
            if not file.path or ".." in path.parts:
                raise Refused(f"{file.path!r} is not a path below the workspace.", field="files")
        longest = kind.lifetime_seconds
        if self.lifetime and longest and self.lifetime > timedelta(seconds=longest):
            raise Refused(
                f"Sandboxes of the type {kind} live at most {longest} s.",
                field="lifetime_seconds",
            )

    def why_not_warm(self) -> str:
        """Say what of the wish cannot be given to a sandbox that runs already; "" if all can."""
        if self.mount_dir is not None:
            return "mount_dir cannot be bound to a sandbox that runs already"
        return ""

    def idle_limit_for(self, kind: SandboxType) -> timedelta | None:
        """Return the idle limit of a sandbox of this wish; None leaves HEARTBEAT_TIMEOUT."""
        if self.idle_limit is not None:
            return self.idle_limit
        return timedelta(seconds=kind.idle_seconds) if kind.idle_seconds else None

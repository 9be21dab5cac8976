"""What start() knew of a sandbox, as a later process will need it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime

from deployers.bubblewrap.processes import Process, boot_id


@dataclass(kw_only=True)
class Record:
    """What start() knew; everything else is asked of the kernel."""

    started_at: str
    boot_id: str = field(default_factory=boot_id)
    monitor: Process | None = None
    """bwrap itself, outside of the sandbox; from before it runs anything."""

    network: Process | None = None
    cgroups: list[str] = field(default_factory=list)
    memory_mb: int = 0
    stage: str = "started"
    """started, stopped or removing."""

    @classmethod
    def from_json(cls, text: str) -> Record:
        names = {each.name for each in fields(cls)}
        # What another version of this program wrote must stay removable.
        known = {key: value for key, value in json.loads(text).items() if key in names}
        for key in ("monitor", "network"):
            known[key] = Process(**known[key]) if known.get(key) else None
        return cls(**known)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @property
    def started(self) -> datetime:
        return datetime.fromisoformat(self.started_at)

    def is_of_this_boot(self) -> bool:
        return self.boot_id == boot_id()

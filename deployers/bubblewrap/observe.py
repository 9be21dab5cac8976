"""What can be seen of a sandbox from its place, by any process at any time."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from deployers.bubblewrap import cgroups, processes
from deployers.bubblewrap.record import Record
from deployers.bubblewrap.state import Place
from deployers.observation import Observation, Phase

KILLED = 128 + 9
"""How bwrap reports the end by SIGKILL."""


def observe(place: Place, *, held: bool = False) -> Observation:
    """Look at a sandbox; held tells that it is the caller's own lock that is on its place."""
    name = place.directory.name
    if not place.directory.is_dir():
        return Observation(name=name, phase=Phase.ABSENT)
    record = place.read()
    if record is None:
        if not held and place.is_locked():
            return Observation(name=name, phase=Phase.STARTING)
        detail = "Only half of it was made: the server ended while it was being started."
        return Observation(name=name, phase=Phase.BROKEN, detail=detail)
    known = {"name": name, "container_id": place.handle, "started_at": record.started}
    if record.stage == "stopped":
        return Observation(phase=Phase.STOPPED, **known)
    if record.is_of_this_boot() and place.first_process():
        place.trim_log()
        url = f"http+unix://{quote(str(place.socket), safe='')}"
        return Observation(phase=Phase.READY, url=url, **known)
    if record.stage == "started" and not held and place.is_locked():
        return Observation(phase=Phase.STARTING, **known)
    if record.is_of_this_boot() and record.monitor:
        # bwrap writes the exit code in the moment after the last process has ended.
        processes.wait([record.monitor], seconds=1)
    code = place.read_status().get("exit-code")
    detail = _why_it_ended(place, record, code)
    return Observation(phase=Phase.BROKEN, exit_code=code, detail=detail, **known)


def _why_it_ended(place: Place, record: Record, code: int | None) -> str:
    starved = cgroups.out_of_memory_kills([Path(path) for path in record.cgroups])
    if not record.is_of_this_boot():
        why = "This host was started again since, which ended it."
    elif code == KILLED and starved:
        why = (
            f"Its guest was killed (exit code {code}) because the sandbox used more memory than "
            f"its ceiling of {record.memory_mb} MiB; raise the memory limit of its type."
        )
    elif code is not None:
        why = f"Its guest ended by itself with exit code {code}."
    else:
        why = "Its processes were killed from outside, or never came to run."
    last = place.tail(5)[-1000:]
    return f"{why} Last lines of its log: {last}" if last else why

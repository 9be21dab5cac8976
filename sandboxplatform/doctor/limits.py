"""What the system allows this user's processes: open files and memory."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from pathlib import Path

from sandboxplatform.doctor.disk import readable
from sandboxplatform.doctor.findings import Finding, ok, warn
from sandboxplatform.doctor.subject import Subject

ENOUGH_FILES = 4096
"""A worker holds a socket or two for each caller and each guest."""

ENOUGH_MEMORY = 512 * 2**20


def look(_: Subject) -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield judge_files(soft, hard)
    available = re.search(r"^MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text(), re.M)
    if available:
        yield judge_memory(int(available[1]) * 1024)


def judge_files(soft: int, hard: int) -> Finding:
    if soft == resource.RLIM_INFINITY or soft >= ENOUGH_FILES:
        return ok(f"{'any number of' if soft == resource.RLIM_INFINITY else soft} open files")
    allowed = "unlimited" if hard == resource.RLIM_INFINITY else hard
    return warn(
        f"{soft} open files a process (hard limit {allowed})",
        "Raise it before the server starts: `ulimit -n 65536` in its shell, LimitNOFILE=65536 in a "
        "systemd unit, or `--ulimit nofile=65536` for a container.",
    )


def judge_memory(available: int) -> Finding:
    if available >= ENOUGH_MEMORY:
        return ok(f"{readable(available)} of memory available")
    return warn(
        f"{readable(available)} of memory available",
        "A worker takes about 100 MB and a sandbox up to its type's memory (1 GiB unless set): end "
        "other programs, or set MAX_SANDBOX_INSTANCES and lower WORKERS.",
    )

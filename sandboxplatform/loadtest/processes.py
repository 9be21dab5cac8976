"""Which processes of this machine serve an address, and what they hold; all read from /proc."""

from __future__ import annotations

import contextlib
import re
import socket
from pathlib import Path

PROC = Path("/proc")
ACCEPTED, LISTENING = "01", "0A"
"""States of a socket in /proc/net/tcp."""


def is_here(host: str) -> bool:
    """Is this host name one of this machine's own addresses?"""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
        with socket.socket(found[0][0]) as probe:
            probe.bind(found[0][4])
    except OSError:
        return False
    return True


def with_sockets(port: int, state: str) -> set[int]:
    """Return the processes that hold sockets of a local port: ACCEPTED are those that answer."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (PROC / "net" / table).read_text().splitlines()[1:]:
                columns = line.split()
                own_port = int(columns[1].rpartition(":")[2], 16)
                if own_port == port and columns[3] == state:
                    inodes.add(columns[9])
    return _holders(inodes)


def sandbox_of_socket(path: str) -> set[int]:
    """Return every process in the namespaces of whoever listens on a Unix socket."""
    lines = (PROC / "net" / "unix").read_text().splitlines()[1:]
    inodes = {line.split()[6] for line in lines if line.endswith(f" {path}")}
    spaces = {_namespace(pid) for pid in _holders(inodes)} - {None, _namespace("self")}
    return {pid for pid in _pids() if _namespace(pid) in spaces}


def resident(pid: int) -> float:
    """Return the MB of memory that a process sees as its own, shared pages included."""
    return _kilobytes(PROC / str(pid) / "status", "VmRSS") * 1.024 / 1000


def proportional(pids: set[int]) -> float:
    """Return the MB that processes hold together, each shared page counted once in all."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += _kilobytes(PROC / str(pid) / "smaps_rollup", "Pss") * 1.024 / 1000
    return total


def mentioning(text: str) -> set[int]:
    """Return the processes in whose command line a text stands."""
    found = set()
    for pid in _pids():
        with contextlib.suppress(OSError):
            if text.encode() in (PROC / str(pid) / "cmdline").read_bytes():
                found.add(pid)
    return found


def available() -> float:
    """Return the MB that the kernel says new programs can have."""
    return _kilobytes(PROC / "meminfo", "MemAvailable") * 1.024 / 1000


def _kilobytes(file: Path, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", file.read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


def _pids() -> list[int]:
    return [int(path.name) for path in PROC.iterdir() if path.name.isdecimal()]


def _holders(inodes: set[str]) -> set[int]:
    wanted = {f"socket:[{inode}]" for inode in inodes - {"0"}}
    found = set()
    for pid in _pids() if wanted else ():
        # Processes of other users cannot be looked into, and some end meanwhile.
        with contextlib.suppress(OSError):
            for link in (PROC / str(pid) / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(link.readlink()) in wanted:
                        found.add(pid)
    return found


def _namespace(pid: int | str) -> str | None:
    try:
        return str((PROC / str(pid) / "ns" / "pid").readlink())
    except OSError:
        return None

"""
Namespaces of its own for a run: nothing of it collides with this machine, nothing outlives it.

A second Docker engine would take the first one's firewall rules away, and a kill at the wrong
moment would leave processes behind. Inside, the network, the mounts and the pids are the run's
own, and the kernel ends them all with the first process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

UNSHARE = (
    "unshare",
    "--mount",
    "--net",
    "--pid",
    "--fork",
    "--mount-proc",
    "--kill-child",
)
SHARED_CONTAINERD = Path("/run/containerd")


def missing() -> str | None:
    """Return why this machine cannot give a run its namespaces, None if it can."""
    if os.geteuid() != 0:
        return "a Docker engine of its own needs root"
    try:
        tried = subprocess.run(
            [*UNSHARE, "ip", "link", "set", "lo", "up"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except FileNotFoundError:
        return "unshare is not installed (apt-get install util-linux)"
    if tried.returncode:
        return f"no namespaces can be made here: {tried.stderr.strip()}"
    return None


def run_inside(arguments: list[str]) -> int:
    """Run this package again, inside; return its exit code. Ctrl-C is for those inside."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        command = [*UNSHARE, sys.executable, "-m", "tests.chaos", "--inside", *arguments]
        return subprocess.run(command, check=False).returncode
    finally:
        signal.signal(signal.SIGINT, before)


def settle_in() -> None:
    """
    Make the namespaces usable; return in a child of their first process.

    The first one has to wait for every orphan, or the killed would stay as zombies.
    """
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    if SHARED_CONTAINERD.is_dir():
        # An engine would use a containerd of the machine that it finds here.
        subprocess.run(["mount", "-t", "tmpfs", "none", str(SHARED_CONTAINERD)], check=True)
    child = os.fork()
    if not child:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return
    while True:
        ended, status = os.wait()
        if ended == child:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)

"""A process that is forked ends with its parent, whenever that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import wait_until

FORK = """
import os, signal, sys, time
from sandboxplatform.processes import die_with_parent
parent = os.getpid()
child = os.fork()
if child:
    print(child, flush=True)
    if sys.argv[1] == "later":
        signal.pause()
    os._exit(0)
if sys.argv[1] == "before":
    while os.getppid() == parent:
        time.sleep(0.001)
die_with_parent(parent)
time.sleep(600)
"""


def ended(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state in "ZX"


@pytest.mark.parametrize("moment", ["before", "later"])
def test_it_ends_with_its_parent_also_one_that_was_faster(moment):
    command = [sys.executable, "-c", FORK, moment]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        try:
            if moment == "later":
                parent.kill()
            wait_until(lambda: ended(child))
        finally:
            if not ended(child):
                os.kill(child, signal.SIGKILL)

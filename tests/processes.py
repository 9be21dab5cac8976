"""
Other processes that work on this test's database: python -m tests.processes DATABASE CALL ARGUMENTS.

CALL is the dotted name of a function, ARGUMENTS a JSON list. The process says "ready", waits for
a line, calls, and prints what the function returned as JSON. Sandboxes of the fake deployer live
in the process that started them; rows, and guests by their address, are seen by all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Self

from sandboxplatform.config import CONFIG_VARIABLE
from sandboxplatform.setting_table import BASE_DIR, BY_NAME

SECONDS = 60

POOL_VARIABLE = "TEST_POOL"
"""Connections that all threads of a process share, with PostgreSQL; unset: one for each thread."""

POOL_SECONDS = 2
"""How long a thread waits for one of them before it fails."""


class OtherProcess:
    """A call in a process of its own, with this test's settings but for those given."""

    def __init__(self, call: Callable[..., object], *arguments: object, **changed: object) -> None:
        from django.conf import settings
        from django.db import connection

        platform = settings.PLATFORM
        ours = {
            "DATA_DIR": settings.DATA_DIR,
            "SECRET_KEY": settings.SECRET_KEY,
            "DATABASE_URL": os.environ.get("TEST_DATABASE_URL", ""),
            "CONTAINER_DEPLOYMENT": "fake",
            "DEFAULT_MOUNT_DIR": platform.DEFAULT_MOUNT_DIR,
            "MAX_SANDBOX_INSTANCES": platform.MAX_SANDBOX_INSTANCES,
            "POOL_SIZE": platform.POOL_SIZE,
            "DJANGO_SETTINGS_MODULE": "sandboxplatform.settings",
            "PYTHONPATH": BASE_DIR,
            **changed,
        }
        kept = {n: v for n, v in os.environ.items() if n not in (*BY_NAME, CONFIG_VARIABLE)}
        dotted = f"{call.__module__}.{call.__qualname__}"
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.processes"),
                *(str(connection.settings_dict["NAME"]), dotted, json.dumps(arguments)),
            ],
            cwd=settings.DATA_DIR,
            env={**kept, **{name: str(value) for name, value in ours.items()}},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def wait_until_ready(self) -> None:
        assert self.process.stdout.readline() == "ready\n"

    def begin(self) -> None:
        """Let it make its call, once it is ready."""
        self.wait_until_ready()
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def result(self) -> object:
        """Return what the call returned, when the process has ended."""
        output, _ = self.process.communicate(timeout=SECONDS)
        assert self.process.returncode == 0
        return json.loads(output.splitlines()[-1])

    def kill(self) -> None:
        """Kill it, as an out-of-memory killer would, and return when it is gone."""
        if self.process.poll() is None:
            self.process.kill()
        if not self.process.stdout.closed:
            self.process.communicate()


def at_once(*processes: OtherProcess) -> list[object]:
    """Let all begin when all are ready; return their results."""
    try:
        for process in processes:
            process.wait_until_ready()
        for process in processes:
            process.process.stdin.write("\n")
            process.process.stdin.flush()
        return [process.result() for process in processes]
    finally:
        for process in processes:
            process.kill()


def main() -> None:
    import django
    from django.conf import settings

    database, dotted, arguments = sys.argv[1:]
    settings.DATABASES["default"]["NAME"] = database
    options = settings.DATABASES["default"].get("OPTIONS", {})
    if size := os.environ.get(POOL_VARIABLE):
        options["pool"] = {"min_size": 1, "max_size": int(size), "timeout": POOL_SECONDS}
    else:
        # A pool's threads would outlive the call.
        options.pop("pool", None)
    django.setup()
    module, _, name = dotted.rpartition(".")
    call = getattr(import_module(module), name)
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(call(*json.loads(arguments))), flush=True)
    if size:
        from django.db import connection

        connection.close_pool()


if __name__ == "__main__":
    main()

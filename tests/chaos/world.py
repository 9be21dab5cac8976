"""The whole of a run: an engine, a database, a Redis, and the server on them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from sandboxplatform.setting_table import BASE_DIR
from tests.chaos.daemons import Engine, Postgres, Redis, wait_for
from tests.chaos.outages import Outages
from tests.server import Server

IMAGE = "agentscope/runtime-sandbox-base:latest"
ORIGINAL = "chaos/runtime-sandbox-base:original"
"""The image as it was loaded; IMAGE moves on with each build."""

WORKERS = 2
POOL_SIZE = 3
PORTS = range(50000, 50100)
IDLE_SECONDS = 4
"""HEARTBEAT_TIMEOUT, so short that sandboxes are recycled and restored all the time."""

LONGEST_START = 150.0
"""Seconds; on a busy machine a server takes its time, and parts of a killed one do to close."""

SETTINGS = {
    "WORKERS": str(WORKERS),
    "POOL_SIZE": str(POOL_SIZE),
    "PORT_RANGE": f"[{PORTS.start},{PORTS.stop}]",
    "HEARTBEAT_TIMEOUT": str(IDLE_SECONDS),
    "HEARTBEAT_LOCK_TTL": "20",
    "WATCHER_SCAN_INTERVAL": "0.5",
    "SHUTDOWN_TIMEOUT": "5",
    "RUNTIME_SANDBOX_TIMEOUT": "20",
    # Records are kept, so that every end can be explained.
    "RELEASED_KEY_TTL": "0",
    "CONTAINER_DEPLOYMENT": "docker",
    "REDIS_ENABLED": "True",
    "REDIS_SERVER": "127.0.0.1",
    "REDIS_PORT": str(Redis.port),
    "DATABASE_URL": Postgres.url,
}


class World:
    """Everything that can be killed; a part of the server is named as ps shows it."""

    def __init__(self, folder: Path) -> None:
        self.outages = Outages()
        self.engine, self.postgres, self.redis = Engine(folder), Postgres(folder), Redis(folder)
        place = folder / "server"
        place.mkdir()
        self.server = Server(place, **SETTINGS)

    @property
    def workspaces(self) -> Path:
        return Path(self.server.settings["DEFAULT_MOUNT_DIR"])

    @property
    def logs(self) -> list[Path]:
        return [self.engine.log, self.postgres.log, self.redis.log, self.server.log]

    def create(self) -> None:
        """Bring everything up but the server."""
        self.postgres.create()
        self.redis.start()
        self.manage("migrate", "--verbosity", "0")
        self.engine.start()
        self.engine.load(IMAGE)
        # Only now: the image came from the engine that was named here before.
        os.environ["DOCKER_HOST"] = self.engine.address
        client = self.engine.client()
        client.images.get(IMAGE).tag(ORIGINAL)
        client.close()

    def manage(self, *arguments: str) -> None:
        command = [sys.executable, str(BASE_DIR / "manage.py"), *arguments]
        subprocess.run(
            command, cwd=self.server.folder, env=self.server.environment(), check=True, timeout=120
        )

    def start_server(self, *, published: bool | None = None, clean: bool = False) -> None:
        """
        Start the server and wait until all of it is there.

        published: whether sandboxes are reached by leased ports from now on; None: as before.
        One that cannot listen yet, because parts of a killed one are still closing, is started
        again, as an init system would.
        """
        if published is not None:
            self.server.settings["SANDBOX_ACCESS_HOST"] = "127.0.0.1" if published else ""
        self.server.settings["AUTO_CLEANUP"] = str(clean)

        def answers() -> bool:
            if self.server.process is None or self.server.process.poll() is not None:
                self.server.spawn()
                time.sleep(0.2)
            return self.is_whole()

        wait_for(answers, "the server did not come up", seconds=LONGEST_START)

    def is_whole(self) -> bool:
        """Are all processes of the server there, and does it answer?"""
        parts = [name for name, _ in self.parts()]
        return (
            {"sandbox-web", "sandbox-keeper", "sandbox-reaper"} <= set(parts)
            and len(self.web_workers()) == WORKERS
            and self.server.get("/readyz", timeout=10)[0] == 200
        )

    def stop_server(self) -> None:
        self.server.stop(timeout=90)

    def kill_server(self, *, whole: bool) -> None:
        """Kill the parent alone, whose children then close, or all of them at once."""
        if whole:
            self.server.kill_all()
        else:
            self.server.process.kill()
            self.server.process.wait(10)

    def parts(self) -> Iterator[tuple[str, int]]:
        """Yield the name and pid of each process that the server's parent has now."""
        for pid in children(self.server.process.pid):
            yield name_of(pid), pid

    def part(self, name: str) -> int | None:
        return dict(self.parts()).get(f"sandbox-{name}")

    def web_workers(self) -> list[int]:
        web = self.part("web")
        return children(web) if web else []

    def strangers(self) -> list[int]:
        """Return the server's processes that are not of the one that runs now."""
        ours = [self.server.process.pid] if self.server.process else []
        for pid in ours:
            ours += children(pid)
        found = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
        return [pid for pid in found if pid not in ours and "runsandboxserver" in command_of(pid)]

    def close(self) -> None:
        """End everything that runs; the namespaces end what resists."""
        if self.server.process and self.server.process.poll() is None:
            self.server.kill_all()
        for daemon in (self.redis, self.postgres, self.engine):
            if daemon.process and daemon.process.poll() is None:
                daemon.kill()


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def children(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""

"""What the server stands on, each a process that can be killed and started again."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import docker

PANIC = "libnetwork.(*controller).reservePools"
LAST_WORDS = 4096
"""Bytes at the end of a log."""


class NotHealthy(Exception):
    """A process did not come up in its time; the sentence ends with its log."""


def wait_for(question: Callable[[], object], what: str, *, seconds: float = 120) -> None:
    """Ask until the answer is true; an OSError or DockerException is a no."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if question():
                return
        except (OSError, docker.errors.DockerException):
            pass
        if time.monotonic() > deadline:
            raise NotHealthy(f"{what} within {seconds:g} s")
        time.sleep(0.05)


class Daemon:
    """One process with a log; start() may be called again after kill()."""

    name = ""
    user: str | None = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder / self.name
        self.folder.mkdir()
        self.log = folder / f"{self.name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def is_healthy(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        """Start it and wait until it answers; one that ends meanwhile is started again."""

        def answers() -> bool:
            if self.process is None or self.process.poll() is not None:
                self.mend()
                with self.log.open("ab") as log:
                    self.process = subprocess.Popen(
                        self.command(),
                        cwd=self.folder,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        user=self.user,
                        group=self.user,
                        extra_groups=[] if self.user else None,
                    )
                # PostgreSQL ends at once while processes of a killed one are still ending.
                time.sleep(0.1)
            return self.is_healthy()

        wait_for(answers, f"{self.name} did not answer")

    def mend(self) -> None:
        """Do before a start what somebody would do by hand, who finds it broken by a kill."""

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)


class Redis(Daemon):
    name = "redis"
    port = 6379

    def command(self) -> list[str]:
        return ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--save", ""]

    def is_healthy(self) -> bool:
        ping = ["redis-cli", "-p", str(self.port), "ping"]
        return b"PONG" in subprocess.run(ping, capture_output=True, check=False).stdout


def postgres_programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, which Debian keeps off PATH; None: not here."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return found[-1].parent if found else None


class Postgres(Daemon):
    name = "postgres"
    user = "postgres"
    port = 5432
    url = "postgres://chaos@127.0.0.1:5432/platform"

    def command(self) -> list[str]:
        # A killed process loses nothing that it has written: only a machine that falls needs fsync.
        options = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.folder),
            "max_connections": "200",
            "fsync": "off",
        }
        given = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return [self._program("postgres"), "-D", self._data, "-p", str(self.port), *given]

    def is_healthy(self) -> bool:
        ask = [self._program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(ask, check=False).returncode == 0

    def create(self) -> None:
        """Make the cluster, start it, and make the database."""
        for folder in (self.folder.parent, self.folder):
            folder.chmod(0o755)
        os.chown(self.folder, *self._numbers())
        self._run("initdb", "-D", self._data, "-A", "trust", "-U", "chaos")
        self.start()
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "chaos", "platform")

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._program(program), *arguments],
            cwd=self.folder,
            user=self.user,
            group=self.user,
            extra_groups=[],
            stdout=subprocess.DEVNULL,
            check=True,
        )

    @staticmethod
    def _program(name: str) -> str:
        return str(postgres_programs() / name)

    def _numbers(self) -> tuple[int, int]:
        import pwd

        found = pwd.getpwnam(self.user)
        return found.pw_uid, found.pw_gid


class Engine(Daemon):
    """
    A Docker engine of the run's own.

    Killed, it leaves its containers running. The next one takes them over with live_restore,
    and ends them without.
    """

    name = "engine"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.address = f"unix://{self.folder}/docker.sock"
        self.live_restore = True
        self.mended_at: list[float] = []
        """When its containers were given up for that; time.monotonic() values."""

    def mend(self) -> None:
        """
        Forget its networks where they keep it from starting, and give up the containers with them.

        An engine before 24 that is killed while it writes them may panic at every start from
        then on (moby issue 45057); to remove the file is the way out that is given there.
        """
        networks = self.folder / "data" / "network" / "files" / "local-kv.db"
        if PANIC in self._last_words() and networks.exists():
            networks.unlink()
            self.live_restore = False
            self.mended_at.append(time.monotonic())

    def _last_words(self) -> str:
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - LAST_WORDS))
            return log.read().decode(errors="replace")

    def command(self) -> list[str]:
        options = {
            "--host": self.address,
            "--data-root": f"{self.folder}/data",
            "--exec-root": f"{self.folder}/exec",
            "--pidfile": f"{self.folder}/pid",
            "--log-level": "warn",
        }
        given = [part for pair in options.items() for part in pair]
        return ["dockerd", *given, *(["--live-restore"] if self.live_restore else [])]

    def client(self) -> docker.DockerClient:
        return docker.DockerClient(self.address, timeout=30)

    def is_healthy(self) -> bool:
        client = self.client()
        try:
            return client.ping()
        finally:
            client.close()

    def load(self, image: str) -> None:
        """Copy an image from this machine's engine."""
        loading = ["docker", "--host", self.address, "load", "--quiet"]
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saved:
            subprocess.run(loading, stdin=saved.stdout, stdout=subprocess.DEVNULL, check=True)

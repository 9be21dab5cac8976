"""What is examined: this installation's settings, its deployer, and its server if one runs."""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

from django.conf import settings
from django.db import DatabaseError

from deployers.base import Deployer, Isolation
from deployers.errors import DeployerError
from sandboxes import deployment
from sandboxes.models import Sandbox
from sandboxes.states import State
from sandboxplatform.loadtest.docker_engine import DockerEngine, EngineError


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What a container engine on this machine says of itself."""

    time: datetime
    asked_at: datetime
    """What this machine's clock said then."""

    root: Path
    """Where it keeps images and containers."""


class Subject:
    """One installation, as the checks see it."""

    def __init__(
        self, platform: SimpleNamespace, *, sandbox_type: str | None = None, pool_size: int = 0
    ) -> None:
        self.platform = platform
        self.sandbox_type = sandbox_type
        """What --sandbox-type names."""

        self.pool_size = pool_size
        """Most connections to the database that one process of a server opens; 0: no pool."""

        self._choice: tuple[str, str] | Exception | None = None
        self._choosing = threading.Lock()

    @property
    def type_names(self) -> list[str]:
        return [self.sandbox_type] if self.sandbox_type else self.platform.DEFAULT_SANDBOX_TYPE

    def choose_deployer(self) -> tuple[str, str]:
        """Return the deployer's name and why it is the one, as a server would; or raise why not."""
        with self._choosing:
            if self._choice is None:
                self._choice = self._try_to_choose()
        if isinstance(self._choice, Exception):
            raise self._choice
        return self._choice

    def _try_to_choose(self) -> tuple[str, str] | Exception:
        try:
            name, reason = deployment.choose()
        except (DeployerError, DatabaseError) as error:
            return error
        self.platform.CONTAINER_DEPLOYMENT = name
        return name, reason

    @property
    def deployer(self) -> Deployer | None:
        """The deployer that a server would use; None where none can be used."""
        if self._choosing.locked():
            return None  # the engine's check has given up waiting for it
        try:
            self.choose_deployer()
        except (DeployerError, DatabaseError):
            return None
        return deployment.current()

    @functools.cached_property
    def engine_facts(self) -> EngineFacts | None:
        """What the container engine says of itself; None where there is none on this machine."""
        if self.deployer is None or self.deployer.isolation is not Isolation.CONTAINER:
            return None
        begun = datetime.now(UTC)
        try:
            info = DockerEngine().call("GET", "/info")
        except EngineError:
            return None
        return EngineFacts(
            time=datetime.fromisoformat(info["SystemTime"]),
            asked_at=begun + (datetime.now(UTC) - begun) / 2,
            root=Path(info["DockerRootDir"]),
        )

    def server_pid(self) -> int | None:
        """Return the process of the server that uses DATA_DIR, without touching its lock."""
        try:
            pid = int((settings.DATA_DIR / "server.lock").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if b"runsandboxserver" in command else None

    def tidy(self) -> None:
        """Take back what asking a deployer made there, unless somebody may need it."""
        if not isinstance(self._choice, tuple):
            return
        deployer = deployment.current()
        try:
            # A halted sandbox would not find its network again.
            in_use = Sandbox.objects.exclude(state=State.STOPPED).exists()
            if not in_use and self.server_pid() is None:
                deployer.remove_shared()
        except (DeployerError, DatabaseError):
            return
        finally:
            deployer.close()

"""Builds of the image that goes on beside the load, again and again."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.chaos.pausing import Pausing
from tests.chaos.world import ORIGINAL, World, kill

BUILD = """
import sys
from pathlib import Path
import django
from django.core.management import execute_from_command_line
django.setup()
from sandboxes import builder
builder.CONTEXT = Path(sys.argv[1])
execute_from_command_line(["manage.py", "buildimage", "base"])
"""
DOCKERFILE = "FROM {original}\nRUN sleep 1\nLABEL version={version}\n"
PAUSE_SECONDS = 3.0


class Builds(Pausing):
    """Builds one version of the base image after the other, in a process of its own each."""

    def __init__(self, world: World, folder: Path) -> None:
        super().__init__("builds")
        self._world = world
        self._context = folder / "context"
        self._file = self._context / "images" / "base" / "Dockerfile"
        self._file.parent.mkdir(parents=True)
        self.log = folder / "builds.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.version = 0

    def step(self) -> None:
        self.build()
        time.sleep(PAUSE_SECONDS)

    def build(self) -> int:
        """Build the next version; return the builder's exit code."""
        self.version += 1
        self._file.write_text(DOCKERFILE.format(original=ORIGINAL, version=self.version))
        environment = {
            **self._world.server.environment(),
            "DJANGO_SETTINGS_MODULE": "sandboxplatform.settings",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", BUILD, str(self._context)],
                cwd=self._world.server.folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self._process.wait()

    def kill(self) -> None:
        """Kill the builder, if one is at work."""
        if self._process and self._process.poll() is None:
            kill(self._process.pid)

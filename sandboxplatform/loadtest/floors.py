"""
The floor: how long the machine itself takes from nothing to a first HTTP 200.

It is measured in the same run, in turns with our own creates, so that what else happens on the
machine hits both. The trivial server is Python without anything imported but sockets: an
http.server would flatter us by the 40 ms that it takes to start.
"""

from __future__ import annotations

import contextlib
import copy
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from sandboxplatform.loadtest.docker_engine import DockerEngine, EngineError
from sandboxplatform.loadtest.results import Limits

LABEL = "io.sandboxplatform.loadtest"
ANSWER_SECONDS = 20.0
PAUSE_SECONDS = 0.002
LEFTOVER_SECONDS = 120
"""Age of a container of ours that no run can still need."""

_SERVE = """
while True:
    connection, _ = listener.accept()
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nOK")
    connection.close()
"""
SERVE_TCP = f"import socket\nlistener = socket.create_server(('', 80))\n{_SERVE}"
SERVE_UNIX = f"""
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
{_SERVE}"""

HELD = {
    "Init": True,
    "CapDrop": ["ALL"],
    "SecurityOpt": ["no-new-privileges:true"],
    "PidsLimit": 512,
    "Memory": 1 << 30,
    "MemorySwap": 1 << 30,
    "NanoCpus": 2_000_000_000,
}
"""How our own sandboxes are held at security level medium."""


class NotMeasured(Exception):
    """There is no floor to be had; the sentence says why."""


def _wait_for_200(open_socket: Callable[[], socket.socket]) -> None:
    deadline = time.perf_counter() + ANSWER_SECONDS
    while time.perf_counter() < deadline:
        try:
            with open_socket() as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: floor\r\n\r\n")
                if b" 200 " in connection.recv(4096):
                    return
        except OSError:
            pass  # not yet
        time.sleep(PAUSE_SECONDS)
    raise NotMeasured(f"the trivial server did not answer within {ANSWER_SECONDS:g} s")


class ContainerFloor:
    """Docker's own time: create, start, first HTTP 200, on the engine's default bridge."""

    limits = Limits(ratio=1.8)

    def __init__(self, engine: DockerEngine, image: str, *, held: bool) -> None:
        how = "held as a sandbox" if held else "default bridge"
        self.name = f"engine: create+start → first HTTP 200 (trivial server, {how})"
        self._engine = engine
        self._body = {
            "Image": image,
            "Entrypoint": ["python3", "-I", "-S", "-c", SERVE_TCP],
            "Cmd": [],
            "Labels": {LABEL: "floor"},
            "HostConfig": {"NetworkMode": "bridge", **(HELD if held else {})},
        }

    def run(self) -> float:
        """Return the seconds of one round; nothing of it is left."""
        begun = time.perf_counter()
        try:
            container = self._engine.call("POST", "/containers/create", self._body)["Id"]
            try:
                self._engine.call("POST", f"/containers/{container}/start")
                seen = self._engine.call("GET", f"/containers/{container}/json")
                address = seen["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
                _wait_for_200(lambda: socket.create_connection((address, 80), timeout=1))
                return time.perf_counter() - begun
            finally:
                self._engine.call("DELETE", f"/containers/{container}", query="?force=1&v=1")
        except EngineError as error:
            raise NotMeasured(str(error)) from error

    cycle_name = "engine: create+start+remove, held as a sandbox"

    def cycle(self) -> float:
        """Create, start and remove, without waiting for what runs in it; return the seconds."""
        begun = time.perf_counter()
        try:
            container = self._engine.call("POST", "/containers/create", self._body)["Id"]
            try:
                self._engine.call("POST", f"/containers/{container}/start")
            finally:
                self._engine.call("DELETE", f"/containers/{container}", query="?force=1&v=1")
        except EngineError as error:
            raise NotMeasured(str(error)) from error
        return time.perf_counter() - begun

    def for_another_thread(self) -> ContainerFloor:
        """Return the same with a connection to the engine of its own."""
        other = copy.copy(self)
        other._engine = DockerEngine()
        return other

    def sweep(self) -> None:
        """Remove what an earlier run that was killed has left."""
        filters = quote(json.dumps({"label": [LABEL]}))
        with contextlib.suppress(EngineError):
            for found in self._engine.call(
                "GET", "/containers/json", query=f"?all=1&filters={filters}"
            ):
                if time.time() - found["Created"] > LEFTOVER_SECONDS:
                    self._engine.call("DELETE", f"/containers/{found['Id']}", query="?force=1&v=1")


class NamespaceFloor:
    """Bubblewrap's own time: start, first HTTP 200 on a Unix socket."""

    limits = Limits(milliseconds=300.0)
    name = "engine: bwrap → first HTTP 200 (trivial server, Unix socket)"

    def run(self) -> float:
        with tempfile.TemporaryDirectory(prefix="sbx-floor-") as folder:
            path = str(Path(folder, "s"))
            command = ["bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/"]
            command += ["--bind", folder, folder, "--proc", "/proc", "--dev", "/dev"]
            command += [sys.executable, "-I", "-S", "-c", SERVE_UNIX, path]
            begun = time.perf_counter()
            try:
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
            except OSError as error:
                raise NotMeasured(f"bwrap does not run ({error})") from error
            try:
                _wait_for_200(lambda: _unix(path))
                return time.perf_counter() - begun
            finally:
                process.kill()
                process.wait()

    cycle_name = "engine: bwrap true"

    def cycle(self) -> float:
        """Run nothing in namespaces of its own; return the seconds."""
        command = ["bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "true"]
        begun = time.perf_counter()
        try:
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise NotMeasured(f"bwrap does not run ({error})") from error
        return time.perf_counter() - begun

    def for_another_thread(self) -> NamespaceFloor:
        """Return one that another thread may use."""
        return self

    def sweep(self) -> None:
        """Nothing outlives a run: bwrap dies with its parent."""


Floor = ContainerFloor | NamespaceFloor


def _unix(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(1)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


def choose(info: dict[str, object]) -> list[Floor]:
    """Return the floors of what a get_info record's sandbox runs on; raise NotMeasured."""
    if str(info["url"]).startswith("http+unix:"):
        return [NamespaceFloor()]
    try:
        engine = DockerEngine()
    except EngineError as error:
        raise NotMeasured(str(error)) from error
    if not engine.has(str(info["container_id"])):
        raise NotMeasured("no Docker engine of this machine knows the sandbox")
    return [ContainerFloor(engine, str(info["version"]), held=held) for held in (False, True)]

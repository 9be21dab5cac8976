"""A real guest in a process of its own, reached as the local deployer reaches it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import httpx

SANDBOXES = Path(__file__).parents[2] / "sandboxes"
SECRET = "guest-test-secret"


class RunningGuest:
    """A guest that listens on a Unix socket; home holds its workspace and its HOME."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.workspace = home / "workspace"
        self.home = home / "home"
        self.log = home / "log"
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        # A socket's path has to be short; pytest's directories are not.
        self._socket_directory = tempfile.mkdtemp(prefix="g")
        self._clients: list[httpx.Client] = []

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_error: object) -> None:
        self.stop()

    @property
    def socket_path(self) -> str:
        return f"{self._socket_directory}/s"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> Self:
        self.workspace.mkdir(exist_ok=True)
        self.home.mkdir(exist_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.socket_path)
        listener.listen(128)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "PYTHONPATH": str(SANDBOXES),
            "SECRET_TOKEN": SECRET,
            "WORKSPACE_DIR": str(self.workspace),
            "GUEST_FD": str(listener.fileno()),
            **self._environment,
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "guest"],
                cwd=self.workspace,
                env=environment,
                pass_fds=[listener.fileno()],
                stderr=log,
            )
        listener.close()
        self.http = self.client()
        assert self.http.get("/fastapi/healthz").text == "OK", self.log.read_text()
        return self

    def client(self, **headers: str) -> httpx.Client:
        headers = {"Authorization": f"Bearer {SECRET}", **headers}
        client = httpx.Client(
            base_url="http://guest",
            headers=headers,
            timeout=60,
            transport=httpx.HTTPTransport(uds=self.socket_path),
        )
        self._clients.append(client)
        return client

    def end(self, signum: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        assert self._process is not None
        self._process.send_signal(signum)
        return self._process.wait(timeout=10)

    def stop(self) -> None:
        for client in self._clients:
            client.close()
        if self._process is not None and self._process.poll() is None:
            self.end()
        shutil.rmtree(self._socket_directory, ignore_errors=True)

    def empty_workspace(self) -> None:
        for entry in self.workspace.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    @contextlib.contextmanager
    def raw_request(self, method: str, path: str, *headers: str) -> Iterator[socket.socket]:
        """Send the head of a request and hand over the connection for the rest."""
        head = [f"{method} {path} HTTP/1.1", "Host: guest", f"Authorization: Bearer {SECRET}"]
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(self.socket_path)
            connection.sendall("\r\n".join([*head, *headers, "", ""]).encode())
            yield connection

    def post(self, path: str, /, **body: Any) -> httpx.Response:
        return self.http.post(f"/fastapi/{path}", json=body)

    def shell(self, command: str, **more: Any) -> Result:
        return Result(self.post("tools/run_shell_command", command=command, **more))

    def cell(self, code: str, **more: Any) -> Result:
        return Result(self.post("tools/run_ipython_cell", code=code, **more))

    def call_tool(self, tool_name: str, **arguments: Any) -> Result:
        return Result(self.post("mcp/call_tool", tool_name=tool_name, arguments=arguments))

    def peak_memory_mb(self) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024


class Result:
    """A tool result, by what its parts are called."""

    def __init__(self, response: httpx.Response) -> None:
        assert response.status_code == 200, response.text
        self.raw = response.json()
        self.failed = self.raw["isError"]
        self.content = self.raw["content"]

    def _text(self, description: str) -> str | None:
        texts = [item["text"] for item in self.content if item.get("description") == description]
        return texts[0] if texts else None

    @property
    def stdout(self) -> str | None:
        return self._text("stdout")

    @property
    def stderr(self) -> str | None:
        return self._text("stderr")

    @property
    def exit_code(self) -> str | None:
        return self._text("returncode")

    @property
    def images(self) -> list[dict[str, Any]]:
        return [item for item in self.content if item["type"] == "image"]


def is_alive(pid: int) -> bool:
    """Does the process run, other than as a zombie?"""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def names(directory: Path) -> list[str]:
    """List all that is below a directory, by its path from there."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))

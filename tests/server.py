"""A real server in a folder of its own, as a user would start it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from sandboxplatform.config import CONFIG_VARIABLE
from sandboxplatform.setting_table import BASE_DIR, BY_NAME
from tests.ports import free_port

TOKEN = "acceptance-token"
PREFIX = "agent-runtime-container-"


class Server:
    """One runsandboxserver process group; start() may be called again after it ended."""

    def __init__(self, folder: Path, *options: str, **settings: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.options = options
        self.log = folder / "server.log"
        self.settings = {
            "PORT": str(self.port),
            "BEARER_TOKEN": TOKEN,
            # Pools are filled where a test is about them.
            "POOL_SIZE": "0",
            "DATA_DIR": str(folder / "data"),
            "DEFAULT_MOUNT_DIR": str(folder / "workspaces"),
            **settings,
        }
        self.process: subprocess.Popen | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def output(self) -> str:
        return self.log.read_text()

    def environment(self) -> dict[str, str]:
        ours = (*BY_NAME, CONFIG_VARIABLE, "DJANGO_SETTINGS_MODULE")
        kept = {name: value for name, value in os.environ.items() if name not in ours}
        return {**kept, **self.settings, "PYTHONUNBUFFERED": "1"}

    def spawn(self) -> subprocess.Popen:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(BASE_DIR / "manage.py"), "runsandboxserver", *self.options],
                cwd=self.folder,
                env=self.environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self.process

    def manage(self, *command: str) -> str:
        """Run another command of manage.py with this server's settings; return what it printed."""
        done = subprocess.run(
            [sys.executable, str(BASE_DIR / "manage.py"), *command],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self) -> Server:
        self.spawn()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"The server ended:\n{self.output}")
            try:
                if self.get("/health")[0] == 200:
                    return self
            except OSError:
                time.sleep(0.02)
        raise AssertionError(f"The server does not answer:\n{self.output}")

    def stop(self, number: int = signal.SIGTERM, timeout: float = 60) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout)

    def kill_all(self) -> None:
        """Kill the parent and its processes at once, as an out-of-memory killer would."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        pids = [self.process.pid, *map(int, children.split())]
        for pid in list(pids):
            tasks = Path(f"/proc/{pid}/task/{pid}/children")
            pids += map(int, tasks.read_text().split()) if tasks.exists() else []
        for pid in dict.fromkeys(pids):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(10)

    def request(self, method, path, body=None, *, token=TOKEN, headers=None, timeout=70):
        """Return status, headers and body of one plain HTTP request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        sent = dict(headers or {})
        if token:
            sent["Authorization"] = f"Bearer {token}"
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def get(self, path, **options):
        status, _, body = self.request("GET", path, **options)
        return status, body

    def rpc(self, name, **fields):
        """Return status and decoded JSON of one RPC."""
        status, _, body = self.request(
            "POST", f"/{name}", json.dumps(fields), headers={"Content-Type": "application/json"}
        )
        return status, json.loads(body)

    def create(self, **fields) -> str:
        status, answer = self.rpc("create_from_pool", **fields)
        assert status == 200, answer
        assert answer["data"], answer
        return answer["data"]

    def shell(self, identity: str, command: str) -> str:
        """Run a command in a sandbox and return its standard output."""
        status, answer = self.rpc(
            "call_tool",
            identity=identity,
            tool_name="run_shell_command",
            arguments={"command": command},
        )
        assert status == 200, answer
        assert not answer["data"]["isError"], answer
        return answer["data"]["content"][0]["text"]

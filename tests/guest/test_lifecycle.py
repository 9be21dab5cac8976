from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import httpx
import pytest

from tests.guest.running import SANDBOXES, SECRET, is_alive
from tests.ports import free_port
from tests.waiting import wait_until

GUEST = SANDBOXES / "guest"


def run_guest(**environment):
    """Run a guest that is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "guest"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(SANDBOXES), **environment},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({}, "SECRET_TOKEN is not set"),
        ({"SECRET_TOKEN": ""}, "SECRET_TOKEN is not set"),
        ({"SECRET_TOKEN": SECRET, "WORKSPACE_DIR": "relative"}, "WORKSPACE_DIR is 'relative'"),
        ({"SECRET_TOKEN": SECRET, "WORKSPACE_DIR": "/dev/null/x"}, "cannot be made"),
        ({"SECRET_TOKEN": SECRET, "NGINX_TIMEOUT": "soon"}, "NGINX_TIMEOUT is 'soon'"),
        ({"SECRET_TOKEN": SECRET, "GUEST_PORT": "http"}, "GUEST_PORT is 'http'"),
    ],
)
def test_a_wrong_setting_stops_the_start_with_its_name(tmp_path, environment, reason):
    ended = run_guest(**{"WORKSPACE_DIR": str(tmp_path), "HOME": str(tmp_path), **environment})
    assert ended.returncode == 2
    assert reason in ended.stderr
    assert SECRET not in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_guest_and_everything_it_runs(start_guest, signum):
    guest = start_guest()
    running = guest.workspace / "running"
    answers = []

    def call():
        answers.append(guest.shell(f"echo $$ >{running}; sleep 60"))

    calling = threading.Thread(target=call)
    calling.start()
    guest.shell(f"(echo $BASHPID >{running}.left; exec sleep 60) &")
    wait_until(lambda: running.exists() and running.read_text().endswith("\n"))
    left = Path(f"{running}.left")
    wait_until(lambda: left.exists() and left.read_text().endswith("\n"))
    assert guest.end(signum) == 0
    calling.join()
    assert answers[0].failed
    wait_until(lambda: not is_alive(int(running.read_text())))
    wait_until(lambda: not is_alive(int(left.read_text())))
    assert "Traceback" not in guest.log.read_text()


def test_what_the_guest_was_started_with_is_not_open_in_its_children(tmp_path):
    script = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
for file in (listener, open("/dev/null")):
    os.set_inheritable(file.fileno(), True)
os.environ["GUEST_FD"] = str(listener.fileno())
os.close(0)
os.execv(sys.executable, [sys.executable, "-P", "-m", "guest"])
"""
    with tempfile.TemporaryDirectory(prefix="g") as short:
        address = f"{short}/s"
        guest = subprocess.Popen(
            [sys.executable, "-c", script, address],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "PYTHONPATH": str(SANDBOXES),
                "SECRET_TOKEN": SECRET,
                "WORKSPACE_DIR": str(tmp_path),
            },
        )
        try:
            wait_until(Path(address).exists)
            with httpx.Client(transport=httpx.HTTPTransport(uds=address, retries=5)) as client:
                answer = client.post(
                    "http://guest/fastapi/tools/run_shell_command",
                    json={"command": "ls /proc/self/fd"},
                    headers={"Authorization": f"Bearer {SECRET}"},
                )
        finally:
            guest.terminate()
            assert guest.wait(timeout=10) == 0
    assert answer.json()["content"][0]["text"].split() == ["0", "1", "2", "3"]


def test_it_serves_tcp_on_the_port_it_is_told(tmp_path):
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONPATH": str(SANDBOXES),
        "SECRET_TOKEN": SECRET,
        "WORKSPACE_DIR": str(tmp_path),
        "GUEST_PORT": str(port),
    }
    guest = subprocess.Popen([sys.executable, "-P", "-m", "guest"], env=environment)
    try:
        headers = {"Authorization": f"Bearer {SECRET}"}

        def answers():
            try:
                url = f"http://127.0.0.1:{port}/fastapi/healthz"
                return httpx.get(url, headers=headers).text == "OK"
            except httpx.ConnectError:
                return False

        wait_until(answers)
    finally:
        guest.terminate()
        assert guest.wait(timeout=10) == 0


@pytest.mark.parametrize("home", [None, "/", "/nonexistent", "/dev/null"])
def test_an_unusable_home_is_replaced_by_a_private_one(start_guest, tmp_path, home):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    guest = start_guest(TMPDIR=str(temporary), HOME=home or "")
    used = Path(guest.shell("echo $HOME").stdout.strip())
    assert used.parent == temporary
    assert used.stat().st_mode & 0o777 == 0o700


def test_before_the_first_tool_nothing_heavy_is_imported(tmp_path):
    listing = (
        "import os, sys\n"
        "from guest.config import Config\n"
        "from guest.app import Guest\n"
        "import guest.server, uvicorn.protocols.http.httptools_impl\n"
        "Guest(Config.from_environment(os.environ))\n"
        "print(*sys.modules)\n"
    )
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONPATH": str(SANDBOXES),
        "SECRET_TOKEN": SECRET,
        "WORKSPACE_DIR": str(tmp_path),
    }
    loaded = subprocess.run(
        [sys.executable, "-P", "-c", listing],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    heavy = {"IPython", "ipykernel", "jupyter_client", "zmq", "mcp", "httpx", "pydantic", "django"}
    assert not heavy & set(loaded)


def test_the_package_imports_only_what_its_requirements_name():
    named = set()
    for file in GUEST.glob("requirements-*.txt"):
        named |= set(re.findall(r"^([a-z][a-z0-9-]*)", file.read_text(), re.MULTILINE))
    # What one of them brings along and builds on.
    named |= {"anyio", "httpx", "pyzmq"}
    modules = {"pyzmq": "zmq"}
    allowed = {modules.get(name, name.replace("-", "_")) for name in named}
    for file in GUEST.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            else:
                continue
            for name in names:
                top = name.partition(".")[0]
                assert top in sys.stdlib_module_names or top in allowed, f"{file}: {name}"


def test_the_image_pins_every_requirement_exactly():
    lock = (SANDBOXES / "images/base/requirements.lock").read_text()
    pinned = re.findall(r"^([A-Za-z0-9_.-]+)==[0-9][^\s]*$", lock, re.MULTILINE)
    lines = [line for line in lock.splitlines() if line and not line.startswith("#")]
    assert len(pinned) == len(lines)
    normal = {name.lower().replace("_", "-") for name in pinned}
    for file in GUEST.glob("requirements-*.txt"):
        for name in re.findall(r"^([a-z][a-z0-9-]*)", file.read_text(), re.MULTILINE):
            assert name in normal

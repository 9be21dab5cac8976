"""Both ways with the reference: our image under its manager, its guest under our server."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from asgiref.sync import async_to_sync

from sandboxes import directory, guests
from sandboxes.models import Sandbox
from sandboxes.readiness import answers
from tests.factories import make_caller, make_sandbox
from tests.ports import free_port

pytestmark = [pytest.mark.sdk, pytest.mark.filterwarnings("ignore")]

EMBEDDED = """
import json
from agentscope_runtime.sandbox import BaseSandbox

with BaseSandbox() as sandbox:
    shell = sandbox.run_shell_command("echo from the shell")
    cell = sandbox.run_ipython_cell("print(6 * 7)")
    sandbox.fs.write("a.txt", "hello")
    print("RESULT " + json.dumps({
        "shell": shell["content"][0]["text"],
        "cell": cell["content"][0]["text"],
        "file": sandbox.fs.read("a.txt"),
        "tools": list(sandbox.list_tools()),
    }))
"""

GUEST = """
import sys
sys.path.insert(0, sys.argv[1])
import uvicorn
from app import app

async def below_fastapi(scope, receive, send):
    # nginx does this in the published image.
    if scope["type"] == "http":
        scope = {**scope, "path": scope["path"].removeprefix("/fastapi"), "root_path": ""}
    await app(scope, receive, send)

uvicorn.run(below_fastapi, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
"""


@pytest.mark.base_image
def test_our_image_works_under_the_references_own_manager(tmp_path):
    workspaces = tmp_path / "sessions_mount_dir"
    environment = {**os.environ, "DEFAULT_MOUNT_DIR": str(workspaces)}
    # Its manager starts containers with the image's user and a folder that it makes itself.
    os.umask(0)
    try:
        done = subprocess.run(
            [sys.executable, "-c", EMBEDDED],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        os.umask(0o022)
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert results, done.stdout + done.stderr
    assert "from the shell" in results[0]
    assert '"cell": "42\\n"' in results[0]
    assert '"file": "hello"' in results[0]
    assert '"generic"' in results[0]


@pytest.fixture
def reference_guest(tmp_path):
    """The reference's guest as a process; yields a running sandbox row that points at it."""
    import agentscope_runtime.sandbox.box.shared as shared

    sandbox = make_sandbox(url="http://127.0.0.1:9")
    port, source = free_port(), str(Path(shared.__path__[0]))
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=workspace, check=True, timeout=20)
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", GUEST, source, str(port)],
        cwd=workspace,
        env={**os.environ, "SECRET_TOKEN": sandbox.guest_secret, "WORKSPACE_DIR": str(workspace)},
    )
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 60
    while not answers(url, sandbox.guest_secret, 2):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    Sandbox.objects.update(url=url)
    directory.clear()
    yield sandbox
    process.terminate()
    process.wait(20)


@pytest.mark.django_db(transaction=True)
def test_our_server_speaks_to_the_references_guest(reference_guest):
    async def converse():
        place = await directory.find(make_caller_cached, reference_guest.name)
        results = [
            await guests.call(place, "GET", "/fastapi/healthz"),
            await guests.call(
                place, "POST", "/fastapi/tools/run_shell_command", json={"command": "echo hi"}
            ),
            await guests.call(
                place, "POST", "/fastapi/tools/run_ipython_cell", json={"code": "print(6*7)"}
            ),
            await guests.call(place, "GET", "/fastapi/mcp/list_tools"),
            await guests.call(place, "GET", "/fastapi/workspace/list?path=."),
        ]
        await guests.connections().close()
        return results

    make_caller_cached = make_caller()
    health, shell, cell, tools, listing = async_to_sync(converse)()
    assert health == (200, b"OK")
    assert (shell[0], b'"text":"hi\\n"' in shell[1]) == (200, True)
    assert (cell[0], b"42" in cell[1]) == (200, True)
    assert tools == (200, b"{}")
    assert listing[0] == 200

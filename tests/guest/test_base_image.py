"""The base image, run as deployers run it."""

from __future__ import annotations

import json
import os
import subprocess
import zipfile

import httpx
import pytest

from tests.guest.running import SECRET, Result
from tests.waiting import wait_until

pytestmark = pytest.mark.base_image

IMAGE = os.environ.get("TEST_BASE_IMAGE", "agentscope/runtime-sandbox-base:latest")
HARDENED = ["--cap-drop=ALL", "--security-opt=no-new-privileges"]
READ_ONLY = [*HARDENED, "--read-only", "--tmpfs=/tmp"]


def docker(*arguments: str) -> str:
    command = ["docker", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


class Container:
    def __init__(self, *options: str) -> None:
        secret = f"--env=SECRET_TOKEN={SECRET}"
        self.id = docker("run", "--detach", "--publish=127.0.0.1::80", secret, *options, IMAGE)
        address = docker("port", self.id, "80/tcp").splitlines()[0]
        headers = {"Authorization": f"Bearer {SECRET}"}
        self.http = httpx.Client(base_url=f"http://{address}/fastapi", headers=headers, timeout=60)
        wait_until(self._answers)

    def _answers(self) -> bool:
        try:
            return self.http.get("/healthz").text == "OK"
        except httpx.TransportError:
            return False

    def shell(self, command: str) -> Result:
        return Result(self.http.post("/tools/run_shell_command", json={"command": command}))

    def cell(self, code: str) -> Result:
        return Result(self.http.post("/tools/run_ipython_cell", json={"code": code}))

    def remove(self) -> None:
        self.http.close()
        docker("rm", "--force", "--volumes", self.id)


@pytest.fixture
def run():
    started = []

    def start(*options: str) -> Container:
        container = Container(*options)
        started.append(container)
        return container

    yield start
    for container in started:
        container.remove()


@pytest.fixture
def strangers_workspace(tmp_path):
    """A directory of the host that belongs to a uid the image does not know."""
    tmp_path.chmod(0o755)
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    if os.getuid() == 0:
        os.chown(workspace, 4321, 4321)
    else:
        pytest.skip("only root can give a directory away")
    return workspace


def exercise(container: Container) -> None:
    """Use every tool once."""
    assert container.shell("git --version").exit_code == "0"
    assert container.cell("1 + 1").stdout == "Out[1]: 2\n"
    put = container.http.put("/workspace/file", params={"path": "a/b"}, content=b"1")
    assert put.status_code == 200
    commit = container.http.post("/watcher/commit_changes", json={}).json()
    assert commit["message"] == "Automated commit"


def test_the_image_is_labelled_lean_and_not_roots():
    [image] = json.loads(docker("image", "inspect", IMAGE))
    assert image["Config"]["Labels"]["io.sandboxplatform.guest"] == "1"
    assert image["Config"]["User"] == "1000:1000"
    assert image["Config"]["WorkingDir"] == "/workspace"
    assert "80/tcp" in image["Config"]["ExposedPorts"]
    assert image["Size"] <= 260_000_000


@pytest.mark.parametrize("init", [["--init"], []], ids=["init", "no-init"])
def test_it_runs_as_an_ordinary_user_without_capabilities(run, init):
    container = run(*HARDENED, "--user=1000", *init)
    exercise(container)
    assert container.shell("id -u; pwd; echo $HOME").stdout == "1000\n/workspace\n/home/sandbox\n"


def test_it_runs_read_only_with_a_workspace(run, strangers_workspace):
    os.chown(strangers_workspace, 1000, 1000)
    container = run(*READ_ONLY, f"--volume={strangers_workspace}:/workspace")
    exercise(container)
    assert container.shell("touch ~/writable").exit_code == "0"


def test_it_runs_as_a_uid_it_does_not_know(run, strangers_workspace):
    volume = f"--volume={strangers_workspace}:/workspace"
    container = run(*HARDENED, "--user=4321:4321", volume)
    exercise(container)
    assert container.shell("id -u; touch ~/x").stdout == "4321\n"
    assert (strangers_workspace / "a/b").stat().st_uid == 4321


@pytest.mark.parametrize("options", [HARDENED, [*READ_ONLY, "--tmpfs=/workspace:uid=1000"]])
def test_what_pip_installs_can_be_imported_in_the_same_kernel(run, tmp_path, options):
    container = run(*options)
    container.cell("1")
    wheel = tmp_path / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny.py", "value = 42\n")
        about = "tiny-1.0.dist-info"
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    container.http.put(
        "/workspace/file", params={"path": wheel.name}, content=wheel.read_bytes()
    ).raise_for_status()
    installed = container.cell(f"!pip install --no-index ./{wheel.name}")
    assert "Successfully installed tiny-1.0" in installed.stdout
    assert container.cell("import tiny; tiny.value").stdout.endswith(": 42\n")
    assert container.shell("python -c 'import tiny'").exit_code == "0"


def test_users_cannot_change_the_guest_or_import_it(run):
    container = run()
    assert container.shell("touch /opt/guest/guest/app.py").failed
    assert container.shell("python3 -c 'import guest'").failed


def test_without_an_init_orphans_are_reaped_and_the_secret_is_nowhere(run):
    container = run(*HARDENED)
    container.shell("(sleep 0.05 &)")
    wait_until(lambda: "sleep" not in container.shell("ps -e -o comm").stdout)
    seen = container.shell("cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'").stdout
    assert SECRET not in seen


@pytest.mark.parametrize("init", [["--init"], []], ids=["init", "no-init"])
def test_it_stops_when_it_is_told_to(run, init):
    container = run(*init)
    container.cell("1")
    docker("stop", "--time=10", container.id)
    state = json.loads(docker("inspect", container.id))[0]["State"]
    assert state["ExitCode"] == 0

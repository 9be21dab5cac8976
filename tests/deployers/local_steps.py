"""What the tests of the local deployer share."""

from __future__ import annotations

import ast
import os
import secrets
import shutil
import tempfile
from pathlib import Path

import pytest

from deployers.bubblewrap import BubblewrapDeployer
from tests.deployers.contract.calls import fetch
from tests.deployers.contract.steps import DeployerSteps
from tests.deployers.other_user import UID, OtherUser

REPOSITORY = Path(__file__).parents[2]
GUEST = Path(__file__).with_name("bubblewrap_guest")
SYSTEM_PYTHON = Path("/usr/bin/python3")
IS_ROOT = os.geteuid() == 0


as_another_user = pytest.mark.skipif(
    not IS_ROOT, reason="the tests already run as an ordinary user"
)


def make_deployer(state_dir, instance, **options):
    options = {"python": SYSTEM_PYTHON, "guest_dir": GUEST, **options}
    return BubblewrapDeployer(instance=instance, state_dir=state_dir, **options)


class LocalSteps(DeployerSteps):
    options: dict[str, object] = {}

    @pytest.fixture
    def state_dir(self):
        # Short, because it must hold sockets, and not below pytest's own, which only we can enter.
        directory = Path(tempfile.mkdtemp(prefix="bwrap-test-"))
        yield directory
        shutil.rmtree(directory)

    @pytest.fixture(autouse=True)
    def _places(self, state_dir):
        self.state_dir = state_dir
        self.handles = {}

    @pytest.fixture
    def deployer(self, state_dir):
        deployer = self.make(f"test-{secrets.token_hex(4)}")
        yield deployer
        deployer.close()

    def make(self, instance):
        return make_deployer(self.state_dir, instance, **self.options)

    def other_instance(self, deployer):
        return self.make(f"{deployer.instance}-b")

    def run_inside(self, deployer, name, command):
        url = deployer.inspect(name).url
        body = command.encode()
        _, headers, output = fetch(url, "/run", method="POST", body=body, timeout=30)
        return int(headers["x-exit-code"]), output.decode()

    def let_die(self, deployer, name):
        fetch(deployer.inspect(name).url, "/exit", method="POST", body=b"7")
        return 7

    def say(self, deployer, name, line):
        fetch(deployer.inspect(name).url, "/say", method="POST", body=line.encode())

    def make_half(self, deployer, spec):
        (self.state_dir / deployer.instance / spec.name / "workspace").mkdir(parents=True)

    def start(self, deployer, spec):
        seen = super().start(deployer, spec)
        self.handles.setdefault(deployer.instance, set()).add(seen.container_id)
        return seen

    def leftovers(self, deployer):
        home = self.state_dir / deployer.instance
        found = [str(path) for path in home.glob("*")]
        for handle in self.handles.get(deployer.instance, ()):
            found += map(str, self.state_dir.glob(f"{handle}*"))
            found += control_groups(handle)
        found += processes_that_hold(home)
        return found + [line for line in mounts() if str(home) in line]

    def python(self, deployer, spec, code):
        """Run Python in the guest itself; return what it leaves in `result`."""
        url = deployer.inspect(spec.name).url
        return ast.literal_eval(
            fetch(url, "/exec", method="POST", body=code.encode(), timeout=20)[2].decode()
        )

    def dial(self, deployer, spec, address):
        """Connect to an address from inside; return the error number, 0 if it worked."""
        code = f"""
import socket
with socket.socket() as caller:
    caller.settimeout(3)
    result = caller.connect_ex({address!r})
"""
        return self.python(deployer, spec, code)


class OrdinaryUserSteps(LocalSteps):
    """The same with a deployer that runs as an ordinary user."""

    @pytest.fixture
    def tmp_path(self):
        # pytest's own is in a directory that only root can enter.
        directory = Path(tempfile.mkdtemp(prefix="bwrap-test-"))
        os.chown(directory, UID, UID)
        yield directory
        shutil.rmtree(directory)

    @pytest.fixture(autouse=True)
    def _places(self, state_dir):
        os.chown(state_dir, UID, UID)
        self.state_dir, self.handles = state_dir, {}

    def make(self, instance):
        address = self.state_dir / f"calls-{secrets.token_hex(4)}"
        return OtherUser(address, lambda: make_deployer(self.state_dir, instance))

    def make_half(self, deployer, spec):
        super().make_half(deployer, spec)
        for path in (self.state_dir, *self.state_dir.rglob("*")):
            os.chown(path, UID, UID)


def processes_that_hold(directory):
    """List the processes that have a file in directory open, as all of a sandbox's have its log."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            links = [str(fd.readlink()) for fd in (process / "fd").iterdir()]
            command = (process / "cmdline").read_text()
        except OSError:
            continue
        if any(link.startswith(f"{directory}/") for link in links):
            found.append(f"{process.name}: {command}")
    return found


def control_groups(handle):
    # Not rglob(), which fails when a group of somebody else vanishes meanwhile.
    return [
        str(Path(parent, name))
        for parent, names, _ in os.walk("/sys/fs/cgroup")
        for name in names
        if handle in name
    ]


def mounts():
    return Path("/proc/self/mountinfo").read_text().splitlines()


def host_processes():
    for process in Path("/proc").glob("[0-9]*"):
        try:
            yield process.name, (process / "cmdline").read_bytes()
        except OSError:
            continue

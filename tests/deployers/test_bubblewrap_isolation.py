from __future__ import annotations

import errno
import os
import secrets
import shutil
import socket
from http.client import HTTPException
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from deployers.bubblewrap import cgroups
from deployers.observation import Phase
from deployers.specs import Limits, SecurityLevel
from tests.deployers.contract import DeployerContract
from tests.deployers.contract.calls import TOKEN, fetch, guest_answers
from tests.deployers.local_steps import (
    GUEST,
    IS_ROOT,
    REPOSITORY,
    UID,
    LocalSteps,
    OrdinaryUserSteps,
    as_another_user,
    host_processes,
    make_deployer,
    mounts,
    processes_that_hold,
)
from tests.waiting import eventually

pytestmark = pytest.mark.bubblewrap


class IsolationTests:
    """What holds whoever runs the server."""

    def test_another_sandbox_cannot_be_seen(self, deployer, make_spec):
        one, two = make_spec(), make_spec(env={"SECRET_TOKEN": TOKEN, "MARK": "token-of-two"})
        self.start(deployer, one)
        url = self.start(deployer, two).url
        self.inside(deployer, two.name, "echo mark-of-two > /workspace/mark-of-two")
        assert self.run_inside(deployer, one.name, "find / -name mark-of-two 2>&-")[1] == ""
        assert self.run_inside(deployer, one.name, f"ls {self.state_dir}")[0] != 0
        assert self.run_inside(deployer, one.name, "find / -name '*.sock' 2>&-")[1] == ""
        seen = self.inside(deployer, one.name, "cat /proc/*/cmdline /proc/*/environ | tr '\\0' ' '")
        assert two.name not in seen
        assert "token-of-two" not in seen
        assert guest_answers(url)

    def test_the_servers_files_and_environment_cannot_be_read(
        self, deployer, make_spec, monkeypatch
    ):
        monkeypatch.setenv("SERVER_SECRET", "the-servers-own")
        (self.state_dir / "db.sqlite3").write_text("the-servers-own")
        spec = make_spec()
        self.start(deployer, spec)
        for path in (
            REPOSITORY / "pyproject.toml",
            self.state_dir / "db.sqlite3",
            self.state_dir / deployer.instance,
            Path("/etc/shadow"),
            Path("/etc/hostname"),
            Path("/home"),
            Path("/root"),
            Path("/var"),
            Path("/run"),
            Path("/sys/fs/cgroup"),
        ):
            _, output = self.run_inside(deployer, spec.name, f"cat {path} || ls -A {path}")
            assert path.name == "hostname" or "No such file or directory" in output, output
        environment = self.inside(deployer, spec.name, "cat /proc/*/environ")
        assert "the-servers-own" not in environment
        assert os.environ["PATH"] not in environment
        assert self.inside(deployer, spec.name, "cat /etc/hostname; hostname") == (
            f"{spec.name}\n{spec.name}"
        )

    def test_the_hosts_processes_cannot_be_seen_or_signalled(self, deployer, make_spec):
        spec = make_spec()
        self.start(deployer, spec)
        pids = self.inside(deployer, spec.name, "ls -d /proc/[0-9]*").splitlines()
        assert all(int(Path(pid).name) < 50 for pid in pids)
        assert self.run_inside(deployer, spec.name, f"kill -0 {os.getpid()}")[0] != 0

    def test_only_the_workspace_and_tmp_can_be_written(self, deployer, make_spec):
        spec = make_spec()
        self.start(deployer, spec)
        for directory in ("/", "/usr", "/etc", "/dev", "/opt", "/opt/guest/guest", "/proc", "/bin"):
            code, output = self.run_inside(deployer, spec.name, f"touch {directory}/new")
            assert code != 0, f"{directory} can be written: {output}"
        self.inside(deployer, spec.name, "cd && touch /workspace/new /tmp/new /dev/shm/new ./own")
        assert self.run_inside(deployer, spec.name, "mount -t tmpfs x /tmp")[0] != 0

    def test_only_the_listening_socket_is_inherited(self, deployer, make_spec):
        spec = make_spec()
        self.start(deployer, spec)
        code = """
import os
links = {int(fd): os.readlink(f"/proc/self/fd/{fd}") for fd in range(64)
         if os.path.lexists(f"/proc/self/fd/{fd}")}
result = links, int(os.environ["GUEST_FD"]), os.getcwd(), os.getuid(), os.getgid()
"""
        links, listener, directory, *ids = self.python(deployer, spec, code)
        log = str(self.state_dir / deployer.instance / spec.name / "log")
        assert (links[0], links[1], links[2]) == ("/dev/null", log, log)
        assert links[listener].startswith("socket:")
        # The one more is the connection that asks.
        assert len(links) == 5
        assert directory == "/workspace"
        assert ids == [1000, 1000]

    def test_nobody_else_can_read_the_secret(self, deployer, make_spec):
        secret = secrets.token_hex(16)
        spec = make_spec(env={"SECRET_TOKEN": secret})
        self.start(deployer, spec)
        assert [pid for pid, command in host_processes() if secret.encode() in command] == []
        # The guest hides what is in its own memory; here its parent's is meant.
        code = rf"""
import re
secret = b"{secret[::-1]}"[::-1]
found, searched = [], 0
with open("/proc/1/maps") as maps, open("/proc/1/mem", "rb") as memory:
    for line in maps:
        first, last, mode = re.match(r"(\w+)-(\w+) (\S+)", line).groups()
        if mode.startswith("rw"):
            memory.seek(int(first, 16))
            searched += 1
            if secret in memory.read(int(last, 16) - int(first, 16)):
                found.append(line)
for path in ("/proc/1/environ", "/proc/1/cmdline", "/proc/1/fd/0"):
    with open(path, "rb") as file:
        if secret in file.read():
            found.append(path)
result = found, searched > 0
"""
        assert self.python(deployer, spec, code) == ([], True)

    def test_nested_user_namespaces_follow_the_security_level(self, deployer, make_spec):
        for level, may in ((SecurityLevel.MEDIUM, False), (SecurityLevel.LOW, True)):
            spec = make_spec(security_level=level)
            self.start(deployer, spec)
            code, output = self.run_inside(deployer, spec.name, "unshare --user true")
            assert (code == 0) is may, output

    def test_without_network_the_hosts_sockets_are_out_of_reach(self, deployer, make_spec):
        spec = make_spec()
        self.start(deployer, spec)
        name = f"\0bwrap-test-{secrets.token_hex(4)}"
        with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as local:
            local.bind(name)
            local.listen()
            port = tcp.getsockname()[1]
            assert self.dial(deployer, spec, ("127.0.0.1", port)) == errno.ECONNREFUSED
            assert self.dial(deployer, spec, ("10.0.2.2", port)) == errno.ENETUNREACH
            code = f"import socket; result = socket.socket(1).connect_ex({name!r})"
            assert self.python(deployer, spec, code) == errno.ECONNREFUSED

    def test_a_fork_bomb_ends_at_the_ceiling(self, deployer, make_spec):
        spec = make_spec(limits=Limits(processes=30))
        self.start(deployer, spec)
        code = """
import os, signal
pids = []
try:
    while len(pids) < 200:
        pid = os.fork()
        if pid == 0:
            signal.pause()
        pids.append(pid)
except BlockingIOError:
    pass
for pid in pids:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
result = len(pids)
"""
        assert 20 <= self.python(deployer, spec, code) <= 30

    def test_the_sizes_of_tmp_and_shared_memory_are_bounded(self, deployer, make_spec):
        spec = make_spec(runtime_config={"tmp_mb": 3, "shm_size": "2m"})
        self.start(deployer, spec)
        output = self.inside(deployer, spec.name, "df -m --output=size /tmp /dev/shm")
        assert output.split()[-2:] == ["3", "2"]


class TestIsolation(IsolationTests, LocalSteps):
    """As whoever runs the tests, with the ceilings that this machine allows."""

    def test_its_socket_is_private_and_refuses_once_the_guest_is_gone(self, deployer, make_spec):
        spec = make_spec()
        url = self.start(deployer, spec).url
        path = Path(unquote(urlsplit(url).netloc))
        assert path.stat().st_mode & 0o777 == 0o600
        self.let_die(deployer, spec.name)
        assert eventually(lambda: deployer.inspect(spec.name).phase is Phase.BROKEN)
        with pytest.raises(ConnectionRefusedError):
            fetch(url, "/fastapi/healthz")

    def test_the_ceilings_hold_without_cgroups_too(self, deployer, make_spec):
        plain = make_deployer(self.state_dir, deployer.instance, use_cgroups=False)
        assert "rlimit" in plain.check()
        DeployerContract.test_the_limit_of_processes_holds(self, plain, make_spec)
        DeployerContract.test_the_limit_of_memory_holds(self, plain, make_spec)
        DeployerContract.test_the_limit_of_file_size_holds(self, plain, make_spec)

    def test_a_guest_that_takes_too_much_memory_is_ended_and_told_why(self, deployer, make_spec):
        if cgroups.find() is None:
            pytest.skip("no cgroup can be made here")
        spec = make_spec(limits=Limits(memory_mb=96))
        self.start(deployer, spec)
        with pytest.raises((OSError, HTTPException)):
            self.python(deployer, spec, "result = len(bytearray(b'x') * 400_000_000)")
        assert eventually(lambda: deployer.inspect(spec.name).phase is Phase.BROKEN)
        seen = deployer.inspect(spec.name)
        assert seen.exit_code == 137
        assert "more memory than its ceiling of 96 MiB" in seen.detail

    @pytest.mark.skipif(not IS_ROOT, reason="only root can run it as another user")
    def test_as_root_each_runs_as_a_user_of_its_own(self, deployer, make_spec):
        users = set()
        for spec in (make_spec(), make_spec()):
            self.start(deployer, spec)
            place = self.state_dir / deployer.instance / spec.name
            for line in processes_that_hold(place):
                users.add((spec.name, Path("/proc", line.partition(":")[0]).stat().st_uid))
        assert len(users) == 2
        assert len({uid for _, uid in users}) == 2
        assert all(uid >= 0x70000000 for _, uid in users)

    @pytest.mark.skipif(not IS_ROOT, reason="only root can show what others cannot reach")
    def test_as_root_an_interpreter_nobody_else_can_reach_works(self, deployer, make_spec):
        hidden = self.state_dir / "hidden"
        (hidden / "guest").mkdir(parents=True)
        shutil.copy(GUEST / "__main__.py", hidden / "guest")
        hidden.chmod(0o700)
        staging = make_deployer(self.state_dir, deployer.instance, guest_dir=hidden / "guest")
        spec = make_spec()
        self.start(staging, spec)
        assert [line for line in mounts() if " /sys " in line and "stage" in line] == []


@as_another_user
class TestIsolationAsAnOrdinaryUser(IsolationTests, OrdinaryUserSteps):
    """With rlimits, because cgroups belong to root."""

    def test_its_processes_belong_to_that_user(self, deployer, make_spec):
        spec = make_spec()
        self.start(deployer, spec)
        holders = processes_that_hold(self.state_dir / deployer.instance)
        assert holders
        for line in holders:
            assert Path("/proc", line.partition(":")[0]).stat().st_uid == UID

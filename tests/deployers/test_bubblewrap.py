from __future__ import annotations

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deployers.errors import Rejected
from deployers.observation import Phase
from deployers.specs import Mount
from tests.deployers.contract import DeployerContract
from tests.deployers.contract.calls import TOKEN, fetch, guest_answers
from tests.deployers.local_steps import (
    GUEST,
    REPOSITORY,
    SYSTEM_PYTHON,
    LocalSteps,
    OrdinaryUserSteps,
    as_another_user,
    make_deployer,
    processes_that_hold,
)
from tests.waiting import eventually

pytestmark = pytest.mark.bubblewrap


class SharedTests:
    """What holds whoever runs the server."""

    def test_the_log_is_cut_when_it_grows(self, deployer, make_spec):
        spec = make_spec()
        self.start(deployer, spec)
        log = self.state_dir / deployer.instance / spec.name / "log"
        for number in range(3):
            self.say(deployer, spec.name, f"{number} " + "x" * 400_000)
        deployer.inspect(spec.name)
        assert log.stat().st_size < 800_000
        self.say(deployer, spec.name, "the last line")
        assert deployer.logs(spec.name).endswith("xxx\nthe last line")

    def test_what_the_sandbox_closed_to_itself_can_be_removed(self, deployer, make_spec):
        spec = make_spec()
        self.start(deployer, spec)
        self.inside(deployer, spec.name, "mkdir -p a/b/c && touch a/b/c/d && chmod 0 a/b/c a/b a .")
        deployer.remove(spec.name)
        assert self.leftovers(deployer) == []

    def test_two_sandboxes_can_write_to_one_workspace(self, deployer, make_spec, tmp_path):
        one, two = make_spec(workspace=tmp_path), make_spec(workspace=tmp_path)
        self.start(deployer, one)
        self.inside(deployer, one.name, "mkdir sub && echo one > sub/file")
        self.start(deployer, two)
        self.inside(deployer, two.name, "echo two >> sub/file && mv sub/file other")
        assert (
            self.inside(deployer, one.name, "echo three >> other; cat other") == "one\ntwo\nthree"
        )

    def test_twenty_start_at_once(self, deployer, make_spec):
        specs = [make_spec() for _ in range(20)]
        with ThreadPoolExecutor(20) as threads:
            list(threads.map(deployer.start, specs))
        for spec in specs:
            self.start(deployer, spec)
        assert len(list(deployer.inspect_all())) == 20
        with ThreadPoolExecutor(20) as threads:
            list(threads.map(deployer.remove, [spec.name for spec in specs]))
        assert list(deployer.inspect_all()) == []

    def test_another_deployer_object_adopts_what_runs(self, deployer, make_spec):
        spec = make_spec()
        self.start(deployer, spec)
        later = self.make(deployer.instance)
        assert [(seen.name, seen.phase) for seen in later.inspect_all()] == [
            (spec.name, Phase.READY)
        ]
        later.remove(spec.name)
        later.close()
        assert deployer.inspect(spec.name).phase is Phase.ABSENT


class TestBubblewrap(SharedTests, LocalSteps, DeployerContract):
    """As whoever runs the tests, with the ceilings that this machine allows."""

    def test_kill_9_of_the_server_leaves_it_running(self, deployer, make_spec):
        spec = make_spec()
        server = f"""
import os, signal, sys
sys.path.insert(0, {str(REPOSITORY)!r})
from pathlib import Path
from deployers.specs import SandboxSpec
from deployers.bubblewrap import BubblewrapDeployer
deployer = BubblewrapDeployer(
    instance={deployer.instance!r}, state_dir=Path({str(self.state_dir)!r}),
    guest_dir=Path({str(GUEST)!r}), python=Path({str(SYSTEM_PYTHON)!r}),
)
deployer.start(SandboxSpec(name={spec.name!r}, image="", env={{"SECRET_TOKEN": {TOKEN!r}}}))
os.kill(os.getpid(), signal.SIGKILL)
"""
        ended = subprocess.run([sys.executable, "-c", server], timeout=30, check=False)
        assert ended.returncode == -signal.SIGKILL
        seen = deployer.inspect(spec.name)
        assert seen.phase is Phase.READY
        assert eventually(lambda: guest_answers(seen.url))
        assert deployer.start(spec).started_at == seen.started_at

    def test_a_server_killed_in_the_middle_of_a_start_leaves_nothing_running(
        self, deployer, make_spec
    ):
        for step in ("_limit_from_outside", "_limit_from_inside"):
            spec = make_spec()
            server = f"""
import os, signal, sys
sys.path.insert(0, {str(REPOSITORY)!r})
from pathlib import Path
from deployers.specs import SandboxSpec
from deployers.bubblewrap import BubblewrapDeployer
from deployers.bubblewrap.startup import Startup
Startup.{step} = lambda self, pid: os.kill(os.getpid(), signal.SIGKILL)
deployer = BubblewrapDeployer(
    instance={deployer.instance!r}, state_dir=Path({str(self.state_dir)!r}),
    guest_dir=Path({str(GUEST)!r}), python=Path({str(SYSTEM_PYTHON)!r}),
)
deployer.start(SandboxSpec(name={spec.name!r}, image="", env={{"SECRET_TOKEN": {TOKEN!r}}}))
"""
            ended = subprocess.run([sys.executable, "-c", server], timeout=30, check=False)
            assert ended.returncode == -signal.SIGKILL
            place = self.state_dir / deployer.instance / spec.name
            assert eventually(lambda place=place: processes_that_hold(place) == [])
            assert deployer.inspect(spec.name).phase is Phase.BROKEN
            deployer.remove(spec.name)
            assert deployer.inspect(spec.name).phase is Phase.ABSENT

    def test_a_pid_used_again_is_not_taken_for_the_sandbox(self, deployer, make_spec):
        spec = make_spec()
        self.start(deployer, spec)
        self.let_die(deployer, spec.name)
        assert eventually(lambda: deployer.inspect(spec.name).phase is Phase.BROKEN)
        place = self.state_dir / deployer.instance / spec.name
        stranger = subprocess.Popen(["sleep", "60"])
        try:
            status = json.loads((place / "status").read_text().splitlines()[0])
            (place / "status").write_text(json.dumps({**status, "child-pid": stranger.pid}))
            record = json.loads((place / "record.json").read_text())
            record["monitor"]["pid"] = stranger.pid
            (place / "record.json").write_text(json.dumps(record))
            assert deployer.inspect(spec.name).phase is Phase.BROKEN
            deployer.remove(spec.name)
            assert stranger.poll() is None
        finally:
            stranger.kill()
            stranger.wait()

    def test_a_restart_of_the_host_ends_it_with_that_reason(self, deployer, make_spec):
        spec = make_spec()
        self.start(deployer, spec)
        path = self.state_dir / deployer.instance / spec.name / "record.json"
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, "boot_id": "another"}))
        seen = deployer.inspect(spec.name)
        path.write_text(json.dumps(record))
        assert seen.phase is Phase.BROKEN
        assert "started again" in seen.detail

    def test_a_record_of_another_version_stays_removable(self, deployer, make_spec):
        spec = make_spec()
        self.start(deployer, spec)
        path = self.state_dir / deployer.instance / spec.name / "record.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "not_known_yet": 1}))
        assert deployer.inspect(spec.name).phase is Phase.READY

    def test_a_guest_that_cannot_begin_is_broken_with_its_last_words(self, deployer, make_spec):
        failing = make_deployer(
            self.state_dir, deployer.instance, command=["/usr/bin/python3", "-m", "no_such_guest"]
        )
        spec = make_spec()
        failing.start(spec)
        assert eventually(lambda: failing.inspect(spec.name).phase is Phase.BROKEN)
        seen = failing.inspect(spec.name)
        assert seen.exit_code == 1
        assert "No module named no_such_guest" in seen.detail

    def test_our_own_guest_runs_with_this_interpreter(self, deployer, make_spec):
        for package in ("uvicorn", "starlette", "ipykernel"):
            pytest.importorskip(package)
        ours = make_deployer(
            self.state_dir,
            deployer.instance,
            python=Path(sys.executable),
            guest_dir=REPOSITORY / "sandboxes" / "guest",
        )
        spec = make_spec()
        url = self.start(ours, spec).url
        for tool, arguments, answer in (
            ("run_shell_command", {"command": "id -un; pwd"}, "sandbox\\n/workspace"),
            ("run_ipython_cell", {"code": "6 * 7"}, "42"),
        ):
            body = json.dumps(arguments).encode()
            path = f"/fastapi/tools/{tool}"
            status, _, result = fetch(url, path, method="POST", body=body, timeout=30)
            assert (status, answer in result.decode()) == (200, True), result

    def test_a_kernel_that_forbids_user_namespaces_is_told_with_the_remedy(self):
        check = f"""
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
from pathlib import Path
from deployers.bubblewrap import BubblewrapDeployer
state = Path({str(self.state_dir)!r})
print(BubblewrapDeployer(instance="a", state_dir=state, guest_dir=state).check())
"""
        script = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
        forbid = ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh"]
        tried = subprocess.run(
            [*forbid, SYSTEM_PYTHON, "-c", check],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert "sysctl -w user.max_user_namespaces=" in tried.stderr
        assert "deployers.errors.Rejected" in tried.stderr

    def test_a_failed_start_leaves_nothing_and_names_the_cause(
        self, deployer, make_spec, monkeypatch
    ):
        monkeypatch.setattr("deployers.bubblewrap.startup.environment", lambda *_: {"PPID=(": ""})
        spec = make_spec()
        with pytest.raises(Rejected, match=spec.name):
            deployer.start(spec)
        assert deployer.inspect(spec.name).phase is Phase.ABSENT
        assert self.leftovers(deployer) == []

    def test_a_directory_that_shows_the_state_of_others_is_refused(self, deployer, make_spec):
        self.state_dir.joinpath(deployer.instance, "x").mkdir(parents=True)
        for source in (self.state_dir, self.state_dir.parent, self.state_dir / deployer.instance):
            mount = Mount(source=source, target="/mnt/state")
            with pytest.raises(Rejected, match="belongs to others"):
                deployer.validate(make_spec(mounts=(mount,)))
        self.state_dir.joinpath(deployer.instance, "x").rmdir()

    @pytest.mark.parametrize("workspace", ["/", "/etc", "/usr/local", "/home", "/proc/self"])
    def test_a_system_directory_is_no_workspace(self, deployer, make_spec, workspace):
        with pytest.raises(Rejected, match="belongs to the system"):
            deployer.validate(make_spec(workspace=Path(workspace)))


@as_another_user
class TestBubblewrapAsAnOrdinaryUser(SharedTests, OrdinaryUserSteps, DeployerContract):
    pass

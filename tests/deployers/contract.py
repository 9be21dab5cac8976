"""
What every deployer must do, as tests. A backend's test class inherits DeployerContract.

The subclass gives the fixture `deployer` and the hooks below; what its deployer does not
support by flag is skipped here, and validate() must then refuse it. The guest may be any HTTP
server that answers GET /fastapi/healthz with 200 and whatever run_inside() and let_die() need.
Every test ends with all its sandboxes removed and leftovers() empty.
"""

from __future__ import annotations

import http.client
import secrets
import socket
import time
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Event

import pytest

from deployers.base import (
    Deployer,
    Isolation,
    Limits,
    Mount,
    Network,
    Observation,
    Phase,
    SandboxSpec,
)
from deployers.errors import DeployerError, Rejected, UnsupportedSpec
from tests.ports import free_port
from tests.waiting import eventually

TOKEN = "contract-secret-token"


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def fetch(
    url: str,
    path: str,
    *,
    method: str = "GET",
    body: bytes | None = None,
    token: str = TOKEN,
    timeout: float = 5,
) -> tuple[int, dict[str, str], bytes]:
    """Send one request to a guest; return status, headers (names in lower case) and body."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "http+unix":
        connection = UnixConnection(urllib.parse.unquote(parts.netloc), timeout)
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
    try:
        headers = {"Authorization": f"Bearer {token}"}
        connection.request(method, parts.path.rstrip("/") + path, body=body, headers=headers)
        answer = connection.getresponse()
        names = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, names, answer.read()
    finally:
        connection.close()


def guest_answers(url: str) -> bool:
    try:
        return fetch(url, "/fastapi/healthz", timeout=1)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


class DeployerSteps:
    """The hooks, fixtures and steps of the contract, also for a backend's further tests."""

    image = ""
    guest_port = 80

    can_run_inside = True
    """Does run_inside() work here?"""

    knows_exit_codes = True
    """Is Observation.exit_code set for a sandbox that ended by itself?"""

    # Hooks of the subclass.

    @pytest.fixture
    def deployer(self) -> Iterator[Deployer]:
        """Give a deployer with an instance id of its own; close it afterwards."""
        raise NotImplementedError

    def other_instance(self, deployer: Deployer) -> Deployer:
        """Return a deployer on the same infrastructure with another instance id."""
        raise NotImplementedError

    def run_inside(self, deployer: Deployer, name: str, command: str) -> tuple[int, str]:
        """
        Run a shell command as the guest would; return exit code and stdout + stderr.

        It must see the guest's user, environment, limits, files and network.
        """
        raise NotImplementedError

    def let_die(self, deployer: Deployer, name: str) -> int:
        """Make the sandbox end by itself, e.g. by an exit of the guest; return its exit code."""
        raise NotImplementedError

    def say(self, deployer: Deployer, name: str, line: str) -> None:
        """Make the guest write a line to its standard output. For supports_logs only."""
        raise NotImplementedError

    def make_half(self, deployer: Deployer, spec: SandboxSpec) -> None:
        """Leave what a start() that was killed in the middle leaves."""
        raise NotImplementedError

    def make_foreign(
        self, deployer: Deployer, spec: SandboxSpec
    ) -> AbstractContextManager[Callable[[], bool]]:
        """
        Put something of the same name there that is not a sandbox of ours.

        A context manager; its value answers whether the thing is still intact.
        """
        pytest.skip("nothing foreign can have the name of a sandbox here")

    def assert_no_way_out(self, deployer: Deployer, name: str) -> None:
        """Check from inside that nothing outside is reached; here: there is no default route."""
        routes = self.inside(deployer, name, "cat /proc/net/route").splitlines()[1:]
        assert [line for line in routes if line.split()[1] == "00000000"] == []

    def leftovers(self, deployer: Deployer) -> list[str]:
        """List all that exists of this instance's sandboxes, seen without the deployer."""
        raise NotImplementedError

    def spec_defaults(self) -> dict[str, object]:
        """Return further fields for every spec."""
        return {}

    # Shared fixtures and steps.

    @pytest.fixture
    def make_spec(self, deployer) -> Iterator[Callable[..., SandboxSpec]]:
        names = []

        def make(**fields) -> SandboxSpec:
            given = {
                "name": f"contract-{secrets.token_hex(6)}",
                "image": self.image,
                "guest_port": self.guest_port,
                "host_port": free_port() if deployer.needs_host_port else None,
                "env": {"SECRET_TOKEN": TOKEN},
                **self.spec_defaults(),
                **fields,
            }
            names.append(given["name"])
            return SandboxSpec(**given)

        yield make
        for name in names:
            deployer.remove(name)
        assert self.leftovers(deployer) == []

    def start(self, deployer: Deployer, spec: SandboxSpec) -> Observation:
        """Start a sandbox and wait, as the caller would, until its guest answers."""
        deployer.validate(spec)
        seen = deployer.start(spec)
        assert seen.name == spec.name
        assert seen.phase in (Phase.STARTING, Phase.READY)

        def ready() -> Observation | None:
            now = deployer.inspect(spec.name)
            return now if now.phase is Phase.READY and guest_answers(now.url) else None

        seen = eventually(ready)
        assert seen, f"the guest did not answer: {deployer.inspect(spec.name)}"
        return seen

    def inside(self, deployer: Deployer, name: str, command: str) -> str:
        """Run a command that must succeed; return its output."""
        code, output = self.run_inside(deployer, name, command)
        assert code == 0, f"{command!r} ended with {code}: {output}"
        return output.strip()

    def need(self, deployer: Deployer, *flags: str) -> None:
        for flag in flags:
            owner = self if flag == "can_run_inside" else deployer
            if not getattr(owner, flag):
                pytest.skip(f"{type(deployer).__name__} does not have {flag}")


class DeployerContract(DeployerSteps):
    # Check and validate.

    def test_check_names_what_was_found(self, deployer):
        line = deployer.check()
        assert line
        assert "\n" not in line

    def test_flags_are_whole(self, deployer):
        assert isinstance(deployer.isolation, Isolation)
        if deployer.keeps_files_when_stopped:
            assert deployer.supports_stop

    def test_the_secret_is_not_in_the_text_of_a_spec(self, make_spec):
        spec = make_spec()
        assert TOKEN not in repr(spec)
        assert TOKEN not in str(spec)

    def test_validate_refuses_a_missing_ability(self, deployer, make_spec, tmp_path):
        deployer.validate(make_spec())
        if not deployer.supports_mounts:
            with pytest.raises(UnsupportedSpec):
                deployer.validate(make_spec(workspace=tmp_path))
            with pytest.raises(UnsupportedSpec):
                deployer.validate(make_spec(mounts=(Mount(source=tmp_path, target="/data"),)))
        if not deployer.supports_network:
            with pytest.raises(UnsupportedSpec):
                deployer.validate(make_spec(network=Network.NONE))
        if deployer.needs_host_port:
            with pytest.raises(UnsupportedSpec):
                deployer.validate(make_spec(host_port=None))

    def test_validate_names_an_unknown_setting(self, deployer, make_spec):
        with pytest.raises(UnsupportedSpec, match="no_such_setting"):
            deployer.validate(make_spec(runtime_config={"no_such_setting": 1}))

    @pytest.mark.parametrize("name", ["", "a" * 64, "../up", "-dash", "two words"])
    def test_validate_refuses_a_name_that_is_no_dns_label(self, deployer, make_spec, name):
        spec = replace(make_spec(), name=name)
        with pytest.raises(UnsupportedSpec):
            deployer.validate(spec)

    def test_what_is_not_supported_says_so(self, deployer):
        calls = {
            "supports_logs": lambda: deployer.logs("contract-never-was"),
            "supports_stop": lambda: deployer.stop("contract-never-was"),
            "supports_pause": lambda: deployer.pause("contract-never-was"),
            "supports_watch": lambda: deployer.watch(Event()),
            "supports_images": lambda: deployer.find_image("contract-never-was"),
        }
        for flag, call in calls.items():
            if not getattr(deployer, flag):
                with pytest.raises(UnsupportedSpec):
                    call()

    # Start, inspect, remove.

    def test_start_makes_it_ready_with_a_url_where_the_guest_answers(self, deployer, make_spec):
        spec = make_spec()
        seen = self.start(deployer, spec)
        assert seen.url.startswith(("http://", "https://", "http+unix://"))
        assert not seen.url.endswith("/")
        assert seen.detail == ""
        assert seen.exit_code is None
        assert seen.started_at.tzinfo is not None
        assert abs(seen.started_at.timestamp() - time.time()) < 60

    def test_start_twice_is_a_success_and_makes_one(self, deployer, make_spec):
        spec = make_spec()
        first = self.start(deployer, spec)
        second = deployer.start(spec)
        assert second.phase is Phase.READY
        assert (second.url, second.container_id) == (first.url, first.container_id)
        assert deployer.inspect(spec.name).started_at == first.started_at
        assert [seen.name for seen in deployer.inspect_all()] == [spec.name]

    def test_two_threads_that_start_the_same_name_make_one(self, deployer, make_spec):
        spec = make_spec()
        barrier = Barrier(2)

        def start() -> Observation:
            barrier.wait()
            return deployer.start(spec)

        with ThreadPoolExecutor(2) as threads:
            answers = [future.result() for future in [threads.submit(start) for _ in range(2)]]
        seen = self.start(deployer, spec)
        assert {answer.container_id for answer in answers} == {seen.container_id}
        assert [one.name for one in deployer.inspect_all()] == [spec.name]

    def test_remove_twice_is_a_success_and_ends_the_guest(self, deployer, make_spec):
        spec = make_spec()
        url = self.start(deployer, spec).url
        deployer.remove(spec.name)
        assert deployer.inspect(spec.name).phase is Phase.ABSENT
        assert self.leftovers(deployer) == []
        assert not guest_answers(url)
        deployer.remove(spec.name)
        assert deployer.inspect(spec.name).phase is Phase.ABSENT

    def test_remove_of_what_never_was_is_a_success(self, deployer):
        deployer.remove("contract-never-was")

    def test_inspect_of_what_never_was_is_absent(self, deployer):
        seen = deployer.inspect("contract-never-was")
        assert seen == Observation(name="contract-never-was", phase=Phase.ABSENT)

    def test_two_threads_that_remove_the_same_name_both_succeed(self, deployer, make_spec):
        spec = make_spec()
        self.start(deployer, spec)
        barrier = Barrier(2)

        def remove() -> Phase:
            barrier.wait()
            deployer.remove(spec.name)
            return deployer.inspect(spec.name).phase

        with ThreadPoolExecutor(2) as threads:
            phases = [future.result() for future in [threads.submit(remove) for _ in range(2)]]
        assert phases == [Phase.ABSENT, Phase.ABSENT]

    def test_remove_of_what_is_half_made_leaves_nothing(self, deployer, make_spec):
        spec = make_spec()
        self.make_half(deployer, spec)
        assert deployer.inspect(spec.name).phase is not Phase.READY
        deployer.remove(spec.name)
        assert deployer.inspect(spec.name).phase is Phase.ABSENT
        assert self.leftovers(deployer) == []

    def test_start_of_what_is_half_made_makes_it_whole(self, deployer, make_spec):
        spec = make_spec()
        self.make_half(deployer, spec)
        self.start(deployer, spec)

    def test_a_name_of_63_characters_works(self, deployer, make_spec):
        spec = make_spec(name=f"contract-{secrets.token_hex(27)}")
        assert len(spec.name) == 63
        self.start(deployer, spec)
        assert [seen.name for seen in deployer.inspect_all()] == [spec.name]
        deployer.remove(spec.name)
        assert deployer.inspect(spec.name).phase is Phase.ABSENT

    def test_a_name_may_be_used_again_and_starts_empty(self, deployer, make_spec):
        spec = make_spec()
        self.start(deployer, spec)
        if self.can_run_inside:
            self.inside(deployer, spec.name, "echo left > /tmp/trace")
        deployer.remove(spec.name)
        self.start(deployer, spec)
        if self.can_run_inside:
            assert self.run_inside(deployer, spec.name, "test -e /tmp/trace")[0] == 1

    # What ended by itself.

    def test_what_ended_by_itself_is_broken_with_the_reason(self, deployer, make_spec):
        spec = make_spec()
        self.start(deployer, spec)
        code = self.let_die(deployer, spec.name)
        assert eventually(lambda: deployer.inspect(spec.name).phase is Phase.BROKEN)
        seen = deployer.inspect(spec.name)
        assert seen.detail
        assert seen.url == ""
        if self.knows_exit_codes:
            assert seen.exit_code == code
            assert str(code) in seen.detail
        assert [one.phase for one in deployer.inspect_all()] == [Phase.BROKEN]
        deployer.remove(spec.name)
        assert deployer.inspect(spec.name).phase is Phase.ABSENT

    def test_start_of_what_is_broken_starts_it_afresh(self, deployer, make_spec):
        spec = make_spec()
        self.start(deployer, spec)
        if self.can_run_inside:
            self.inside(deployer, spec.name, "echo left > /tmp/trace")
        self.let_die(deployer, spec.name)
        assert eventually(lambda: deployer.inspect(spec.name).phase is Phase.BROKEN)
        self.start(deployer, spec)
        if self.can_run_inside:
            assert self.run_inside(deployer, spec.name, "test -e /tmp/trace")[0] == 1

    # Ours and theirs.

    def test_inspect_all_shows_ours_and_no_strangers(self, deployer, make_spec):
        ours = [make_spec().name for _ in range(2)]
        theirs = make_spec()
        other = self.other_instance(deployer)
        try:
            for name in ours:
                self.start(deployer, make_spec(name=name))
            self.start(other, theirs)
            assert sorted(seen.name for seen in deployer.inspect_all()) == sorted(ours)
            assert [seen.name for seen in other.inspect_all()] == [theirs.name]
            shown, looked = next(iter(other.inspect_all())), other.inspect(theirs.name)
            assert replace(shown, started_at=None) == replace(looked, started_at=None)
            assert shown.started_at <= looked.started_at
            deployer.remove(theirs.name)
            assert other.inspect(theirs.name).phase is Phase.READY
            assert deployer.inspect(theirs.name).phase is Phase.ABSENT
        finally:
            other.remove(theirs.name)
            left = self.leftovers(other)
            other.close()
        assert left == []

    def test_what_is_foreign_is_neither_shown_nor_touched(self, deployer, make_spec):
        spec = make_spec()
        with self.make_foreign(deployer, spec) as is_intact:
            assert deployer.inspect(spec.name).phase is Phase.ABSENT
            assert list(deployer.inspect_all()) == []
            deployer.remove(spec.name)
            assert is_intact()
            with pytest.raises(Rejected, match=spec.name):
                deployer.start(spec)
            assert is_intact()

    # What reaches the inside.

    def test_the_environment_reaches_the_guest(self, deployer, make_spec):
        self.need(deployer, "can_run_inside")
        value = 'it\'s a "value" with $signs, ünicode and = in it'
        spec = make_spec(env={"SECRET_TOKEN": TOKEN, "CONTRACT_VALUE": value})
        self.start(deployer, spec)
        assert self.inside(deployer, spec.name, "printenv CONTRACT_VALUE") == value

    def test_the_workspace_is_writable_and_survives_removal(self, deployer, make_spec, tmp_path):
        self.need(deployer, "supports_mounts", "can_run_inside")
        (tmp_path / "input.txt").write_text("from outside")
        spec = make_spec(workspace=tmp_path)
        self.start(deployer, spec)
        assert self.inside(deployer, spec.name, "cat /workspace/input.txt") == "from outside"
        self.inside(deployer, spec.name, "mkdir /workspace/sub && echo hi > /workspace/sub/out")
        self.inside(deployer, spec.name, "rm /workspace/input.txt")
        deployer.remove(spec.name)
        assert [path.name for path in tmp_path.iterdir()] == ["sub"]
        assert (tmp_path / "sub" / "out").read_text() == "hi\n"
        (tmp_path / "sub" / "out").unlink()

    def test_without_a_workspace_directory_it_is_writable_too(self, deployer, make_spec):
        self.need(deployer, "can_run_inside")
        spec = make_spec()
        self.start(deployer, spec)
        assert self.inside(deployer, spec.name, "cd /workspace && echo hi > f && cat f") == "hi"

    def test_mounts_are_read_only_unless_said_otherwise(self, deployer, make_spec, tmp_path):
        self.need(deployer, "supports_mounts", "can_run_inside")
        fixed, open_ = tmp_path / "fixed", tmp_path / "open"
        for directory in (fixed, open_):
            directory.mkdir()
            directory.chmod(0o777)
            (directory / "here").write_text("seen")
        mounts = (
            Mount(source=fixed, target="/mnt/fixed"),
            Mount(source=open_, target="/mnt/open", read_only=False),
        )
        spec = make_spec(mounts=mounts)
        self.start(deployer, spec)
        assert self.inside(deployer, spec.name, "cat /mnt/fixed/here /mnt/open/here") == "seenseen"
        assert self.run_inside(deployer, spec.name, "touch /mnt/fixed/new")[0] != 0
        self.inside(deployer, spec.name, "touch /mnt/open/new")
        assert not (fixed / "new").exists()
        assert (open_ / "new").exists()

    def test_a_mount_whose_source_is_missing_is_refused(self, deployer, make_spec, tmp_path):
        self.need(deployer, "supports_mounts")
        missing = tmp_path / "missing"
        spec = make_spec(mounts=(Mount(source=missing, target="/mnt/missing"),))
        with pytest.raises(Rejected, match=str(missing)):
            deployer.start(spec)
        assert not Path(missing).exists()
        assert deployer.inspect(spec.name).phase is Phase.ABSENT

    # Stop and go on.

    def test_stop_keeps_the_files_and_start_goes_on(self, deployer, make_spec, tmp_path):
        self.need(deployer, "supports_stop")
        looks = self.can_run_inside
        mounted = {"workspace": tmp_path} if deployer.supports_mounts else {}
        spec = make_spec(**mounted)
        first = self.start(deployer, spec)
        if looks:
            self.inside(deployer, spec.name, "echo kept > /workspace/f; echo kept > /tmp/f")
        deployer.stop(spec.name)
        deployer.stop(spec.name)
        seen = deployer.inspect(spec.name)
        assert (seen.phase, seen.url) == (Phase.STOPPED, "")
        assert [one.phase for one in deployer.inspect_all()] == [Phase.STOPPED]
        assert not guest_answers(first.url)
        self.start(deployer, spec)
        if looks:
            assert self.inside(deployer, spec.name, "cat /workspace/f") == "kept"
        if looks and deployer.keeps_files_when_stopped:
            assert self.inside(deployer, spec.name, "cat /tmp/f") == "kept"

    def test_what_dies_after_a_stop_and_start_is_broken_again(self, deployer, make_spec):
        self.need(deployer, "supports_stop")
        spec = make_spec()
        self.start(deployer, spec)
        deployer.stop(spec.name)
        self.start(deployer, spec)
        self.let_die(deployer, spec.name)
        assert eventually(lambda: deployer.inspect(spec.name).phase is Phase.BROKEN)

    def test_what_is_stopped_can_be_removed(self, deployer, make_spec):
        self.need(deployer, "supports_stop")
        spec = make_spec()
        self.start(deployer, spec)
        deployer.stop(spec.name)
        deployer.remove(spec.name)
        assert deployer.inspect(spec.name).phase is Phase.ABSENT

    def test_stop_of_what_is_absent_is_an_error(self, deployer):
        self.need(deployer, "supports_stop")
        with pytest.raises(Rejected, match="contract-never-was"):
            deployer.stop("contract-never-was")

    # Pause.

    def test_pause_freezes_it_and_unpause_continues_it(self, deployer, make_spec):
        self.need(deployer, "supports_pause")
        spec = make_spec()
        before = self.start(deployer, spec)
        for _ in range(2):
            deployer.pause(spec.name)
            seen = deployer.inspect(spec.name)
            assert seen == replace(before, phase=Phase.PAUSED)
            assert [(one.phase, one.url) for one in deployer.inspect_all()] == [
                (Phase.PAUSED, before.url)
            ]
            assert not guest_answers(before.url)
        for _ in range(2):
            deployer.unpause(spec.name)
            assert deployer.inspect(spec.name) == before
            assert guest_answers(before.url)

    def test_a_request_that_meets_a_paused_one_is_answered_later(self, deployer, make_spec):
        self.need(deployer, "supports_pause")
        spec = make_spec()
        url = self.start(deployer, spec).url
        deployer.pause(spec.name)
        with ThreadPoolExecutor(1) as threads:
            asked = threads.submit(fetch, url, "/fastapi/healthz", timeout=60)
            deployer.unpause(spec.name)
            assert asked.result()[0] == 200

    def test_start_continues_what_is_paused(self, deployer, make_spec):
        self.need(deployer, "supports_pause")
        spec = make_spec()
        before = self.start(deployer, spec)
        deployer.pause(spec.name)
        assert self.start(deployer, spec) == before

    def test_what_is_paused_can_be_stopped_and_started(self, deployer, make_spec):
        self.need(deployer, "supports_pause", "supports_stop")
        spec = make_spec()
        self.start(deployer, spec)
        deployer.pause(spec.name)
        deployer.stop(spec.name)
        assert deployer.inspect(spec.name).phase is Phase.STOPPED
        with pytest.raises(Rejected, match=spec.name):
            deployer.pause(spec.name)
        with pytest.raises(Rejected, match=spec.name):
            deployer.unpause(spec.name)
        self.start(deployer, spec)

    def test_what_is_paused_can_be_removed(self, deployer, make_spec):
        self.need(deployer, "supports_pause")
        spec = make_spec()
        url = self.start(deployer, spec).url
        deployer.pause(spec.name)
        deployer.remove(spec.name)
        assert deployer.inspect(spec.name).phase is Phase.ABSENT
        assert not guest_answers(url)

    def test_pause_and_unpause_of_what_does_not_run_are_errors(self, deployer, make_spec):
        self.need(deployer, "supports_pause")
        spec = make_spec()
        self.start(deployer, spec)
        self.let_die(deployer, spec.name)
        assert eventually(lambda: deployer.inspect(spec.name).phase is Phase.BROKEN)
        for name in (spec.name, "contract-never-was"):
            for verb in (deployer.pause, deployer.unpause):
                with pytest.raises(Rejected, match=name):
                    verb(name)

    # Watch.

    @pytest.fixture
    def watch(self, deployer) -> Iterator[Callable[[], Iterator[str]]]:
        """Start to watch; the test's end stops it."""
        self.need(deployer, "supports_watch")
        stop = Event()
        yield lambda: deployer.watch(stop)
        stop.set()

    def test_watch_tells_what_ended_by_itself(self, deployer, make_spec, watch):
        others, spec = make_spec(), make_spec()
        for one in (others, spec):
            self.start(deployer, one)
        names = watch()
        self.let_die(deployer, spec.name)
        assert next(names) == spec.name
        assert eventually(lambda: deployer.inspect(spec.name).phase is Phase.BROKEN)

    def test_watch_tells_what_was_removed(self, deployer, make_spec, watch):
        spec = make_spec()
        self.start(deployer, spec)
        names = watch()
        # By somebody else, who shares nothing with the one that watches.
        with ThreadPoolExecutor(1) as threads:
            removal = threads.submit(deployer.remove, spec.name)
            assert next(names) == spec.name
            removal.result()

    def test_watch_tells_of_what_was_started_after_it_began(self, deployer, make_spec, watch):
        names = watch()
        with ThreadPoolExecutor(1) as threads:
            told = threads.submit(next, names)
            spec = make_spec()
            self.start(deployer, spec)
            self.let_die(deployer, spec.name)
            assert told.result() == spec.name

    def test_each_watch_tells_each_end(self, deployer, make_spec, watch):
        specs = [make_spec(), make_spec()]
        for spec in specs:
            self.start(deployer, spec)
        first, second = watch(), watch()
        for spec in specs:
            self.let_die(deployer, spec.name)
        for names in (first, second):
            told = set()
            while told != {spec.name for spec in specs}:
                told.add(next(names))

    def test_watch_tells_nothing_of_strangers(self, deployer, make_spec, watch):
        spec, theirs = make_spec(), make_spec()
        other = self.other_instance(deployer)
        try:
            self.start(other, theirs)
            self.start(deployer, spec)
            names = watch()
            self.let_die(other, theirs.name)
            assert eventually(lambda: other.inspect(theirs.name).phase is Phase.BROKEN)
            self.let_die(deployer, spec.name)
            assert next(names) == spec.name
        finally:
            other.remove(theirs.name)
            other.close()

    def test_watch_ends_when_it_is_told_to(self, deployer, make_spec):
        self.need(deployer, "supports_watch")
        stop = Event()
        names = deployer.watch(stop)
        with ThreadPoolExecutor(1) as threads:
            told = threads.submit(list, names)
            stop.set()
            assert told.result() == []
        assert list(deployer.watch(stop)) == []

    # Logs, limits, network, errors.

    def test_logs_show_the_last_lines(self, deployer, make_spec):
        self.need(deployer, "supports_logs")
        spec = make_spec()
        self.start(deployer, spec)
        for number in range(5):
            self.say(deployer, spec.name, f"line {number}")
        assert eventually(lambda: "line 4" in deployer.logs(spec.name))
        assert deployer.logs(spec.name, lines=2).splitlines() == ["line 3", "line 4"]
        self.let_die(deployer, spec.name)
        assert eventually(lambda: deployer.inspect(spec.name).phase is Phase.BROKEN)
        assert "line 0\nline 1\nline 2" in deployer.logs(spec.name)
        assert deployer.logs("contract-never-was") == ""

    def test_the_limit_of_processes_holds(self, deployer, make_spec):
        self.need(deployer, "supports_limits", "can_run_inside")
        spec = make_spec(limits=Limits(processes=24))
        self.start(deployer, spec)
        # Each sleeper holds one process; the shell cannot fork the last ones.
        command = "for i in $(seq 40); do sleep 1 & done; wait"
        code, output = self.run_inside(deployer, spec.name, command)
        assert code != 0
        assert "fork" in output.lower()

    def test_the_limit_of_memory_holds(self, deployer, make_spec):
        self.need(deployer, "supports_limits", "can_run_inside")
        spec = make_spec(limits=Limits(memory_mb=96))
        self.start(deployer, spec)
        # tail keeps a last line without an end in memory as a whole.
        small, large = "head -c 10m /dev/zero | tail", "head -c 300m /dev/zero | tail"
        assert self.run_inside(deployer, spec.name, f"{small} | wc -c")[1].strip() == "10485760"
        assert self.run_inside(deployer, spec.name, f"{large} | wc -c")[1].strip() != "314572800"

    def test_the_limit_of_file_size_holds(self, deployer, make_spec):
        self.need(deployer, "supports_limits", "can_run_inside")
        spec = make_spec(limits=Limits(file_size_mb=1))
        self.start(deployer, spec)
        self.inside(deployer, spec.name, "head -c 1048576 /dev/zero > /tmp/fits")
        code, _ = self.run_inside(deployer, spec.name, "head -c 1048577 /dev/zero > /tmp/big")
        assert code != 0

    def test_without_network_nothing_outside_is_reached(self, deployer, make_spec):
        self.need(deployer, "supports_network", "can_run_inside")
        spec = make_spec(network=Network.NONE)
        seen = self.start(deployer, spec)
        assert guest_answers(seen.url)
        self.assert_no_way_out(deployer, spec.name)

    def test_a_missing_image_is_refused_by_name_and_leaves_nothing(self, deployer, make_spec):
        self.need(deployer, "supports_images")
        spec = make_spec(image="localhost:1/contract/no-such-image:never")
        with pytest.raises(DeployerError, match="no-such-image") as caught:
            deployer.start(spec)
        assert TOKEN not in str(caught.value)
        assert deployer.inspect(spec.name).phase is Phase.ABSENT
        assert self.leftovers(deployer) == []

"""
Sandboxes that are not there: the whole contract in memory, with knobs, for tests and demos.

They live in a dictionary of the process, by instance, so that every FakeDeployer of the same
instance sees the same ones, as the cache backend locmem does. Each is answered by a real HTTP
server (guest.py) that plays the guest.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from deployers.base import Isolation
from deployers.errors import PortTaken, Rejected, UnsupportedSpec
from deployers.fake.freezing import FreezableGuest
from deployers.fake.images import FakeImages
from deployers.fake.knobs import Failure
from deployers.fake.sandbox import FakeSandbox
from deployers.fake.watching import Watchers
from deployers.observation import Observation, Phase
from deployers.specs import SandboxSpec

_lock = threading.RLock()
_sandboxes: defaultdict[str, dict[str, FakeSandbox]] = defaultdict(dict)
_watchers = Watchers()


class FakeDeployer(FakeImages):
    """
    Keep the contract in memory; every knob is an attribute that may be turned at any time.

    start_delay, remove_delay   seconds that these calls take
    fail_check, fail_start, fail_inspect, fail_remove, fail_build, fail_watch   what they raise
    ready                       False: sandboxes stay STARTING
    dies_after, disappears_after   seconds until a sandbox is BROKEN, or ABSENT
    guest_delay, guest_status   seconds until the guest's healthz is OK; its status then
    images                      names of the images that exist (changed by pull and build); None:
                                images mean nothing here
    offered                     names of the images that a registry offers

    calls counts the calls by verb.
    """

    isolation = Isolation.PROCESS

    def __init__(
        self,
        *,
        instance: str = "fake",
        start_delay: float = 0,
        remove_delay: float = 0,
        fail_check: Failure = None,
        fail_start: Failure = None,
        fail_inspect: Failure = None,
        fail_remove: Failure = None,
        fail_build: Failure = None,
        fail_watch: Failure = None,
        ready: bool = True,
        dies_after: float | None = None,
        disappears_after: float | None = None,
        guest_delay: float = 0,
        guest_status: int = 200,
        images: Mapping[str, str] | None = None,
        offered: frozenset[str] = frozenset(),
        needs_host_port: bool = False,
        supports_mounts: bool = True,
        supports_limits: bool = True,
        supports_logs: bool = True,
        supports_stop: bool = True,
        supports_pause: bool = True,
        supports_watch: bool = True,
        supports_network: bool = True,
    ) -> None:
        super().__init__(instance=instance)
        self.start_delay = start_delay
        self.remove_delay = remove_delay
        self.fail_check = fail_check
        self.fail_start = fail_start
        self.fail_inspect = fail_inspect
        self.fail_remove = fail_remove
        self.fail_build = fail_build
        self.fail_watch = fail_watch
        self.ready = ready
        self.dies_after = dies_after
        self.disappears_after = disappears_after
        self.guest_delay = guest_delay
        self.guest_status = guest_status
        self.images = None if images is None else dict(images)
        self.offered = offered
        self.needs_host_port = needs_host_port
        self.supports_mounts = supports_mounts
        self.supports_limits = supports_limits
        self.supports_images = images is not None
        self.supports_logs = supports_logs
        self.supports_stop = self.keeps_files_when_stopped = supports_stop
        self.supports_pause = supports_pause
        self.supports_watch = supports_watch
        self.supports_network = supports_network
        self.calls: Counter[str] = Counter()

    def check(self) -> str:
        self._enter("check", self.fail_check)
        return f"Fake sandboxes of {self.instance!r} in this process"

    def validate(self, spec: SandboxSpec) -> None:
        super().validate(spec)
        if spec.runtime_config:
            unknown = ", ".join(spec.runtime_config)
            raise UnsupportedSpec(f"Fake sandboxes have no runtime_config: {unknown}.")

    def start(self, spec: SandboxSpec) -> Observation:
        self._enter("start", self.fail_start, spec.name)
        self.validate(spec)
        time.sleep(self.start_delay)
        for source in [mount.source for mount in spec.mounts] + [spec.workspace or Path("/")]:
            if not source.is_dir():
                raise Rejected(f"The directory {source} does not exist: create it first.")
        with _lock:
            if self.images is not None and self.find_image(spec.image) is None:
                self.pull(spec.image)
            sandbox = self._look_up(spec.name)
            if sandbox and sandbox.phase is Phase.PAUSED:
                sandbox.unpause()
            if sandbox and sandbox.phase is Phase.READY:
                return sandbox.observe()
            if sandbox is None or sandbox.phase is Phase.BROKEN:
                sandbox = FakeSandbox(spec)
            self._run(sandbox)
            _sandboxes[self.instance][spec.name] = sandbox
            return sandbox.observe()

    def inspect(self, name: str) -> Observation:
        self._enter("inspect", self.fail_inspect, name)
        with _lock:
            sandbox = self._look_up(name)
            return sandbox.observe() if sandbox else Observation(name=name, phase=Phase.ABSENT)

    def remove(self, name: str) -> None:
        self._enter("remove", self.fail_remove, name)
        time.sleep(self.remove_delay)
        self.vanish(name)

    def inspect_all(self) -> Iterator[Observation]:
        self._enter("inspect_all", self.fail_inspect)
        with _lock:
            found = [self._look_up(name) for name in list(_sandboxes[self.instance])]
            seen = [sandbox.observe() for sandbox in found if sandbox]
        yield from seen

    def stop(self, name: str) -> None:
        if not self.supports_stop:
            super().stop(name)
        self._enter("stop")
        with _lock:
            self._get(name, Phase.READY, Phase.PAUSED, Phase.STOPPED).end(Phase.STOPPED)
        _watchers.tell(self.instance, name)

    def pause(self, name: str) -> None:
        if not self.supports_pause:
            super().pause(name)
        self._enter("pause")
        with _lock:
            self._get(name, Phase.READY, Phase.PAUSED).pause()

    def unpause(self, name: str) -> None:
        if not self.supports_pause:
            super().unpause(name)
        self._enter("unpause")
        with _lock:
            self._get(name, Phase.READY, Phase.PAUSED).unpause()

    def watch(self, stop: threading.Event) -> Iterator[str]:
        if not self.supports_watch:
            super().watch(stop)
        self.calls["watch"] += 1
        return _watchers.names(self.instance, stop, lambda: self._fail(self.fail_watch, ""))

    def logs(self, name: str, *, lines: int = 200) -> str:
        if not self.supports_logs:
            super().logs(name)
        self._enter("logs")
        with _lock:
            sandbox = self._look_up(name)
            return "".join(f"{line}\n" for line in sandbox.lines[-lines:]) if sandbox else ""

    def kill(self, name: str, *, exit_code: int = 137) -> None:
        """Make a sandbox end by itself, as a crash of the guest would."""
        with _lock:
            detail = f"It ended by itself with exit code {exit_code}."
            _sandboxes[self.instance][name].end(Phase.BROKEN, exit_code=exit_code, detail=detail)
        _watchers.tell(self.instance, name)

    def vanish(self, name: str) -> None:
        """Take a sandbox away behind the caller's back, as an operator might."""
        with _lock:
            if sandbox := _sandboxes[self.instance].pop(name, None):
                sandbox.end(Phase.ABSENT)
                _watchers.tell(self.instance, name)

    def say(self, name: str, line: str) -> None:
        """Write a line to a sandbox's log."""
        with _lock:
            _sandboxes[self.instance][name].lines.append(line)

    def clear(self) -> None:
        """Take all sandboxes of this instance away."""
        for name in list(_sandboxes[self.instance]):
            self.vanish(name)

    def _run(self, sandbox: FakeSandbox) -> None:
        spec = sandbox.spec
        if sandbox.guest is None:
            port = (spec.host_port or 0) if self.needs_host_port else 0
            try:
                sandbox.guest = FreezableGuest(
                    env=spec.env,
                    files=sandbox.files,
                    workspace=spec.workspace,
                    port=port,
                    delay=self.guest_delay,
                    status=self.guest_status,
                )
            except OSError as error:
                raise PortTaken(f"Port {port} is in use: {error.strerror}.", port=port) from None
        now = time.monotonic()
        sandbox.phase = Phase.READY if self.ready else Phase.STARTING
        sandbox.started_at = datetime.now(UTC)
        sandbox.dies_at = None if self.dies_after is None else now + self.dies_after
        vanishes_after = self.disappears_after
        sandbox.vanishes_at = None if vanishes_after is None else now + vanishes_after
        for seconds in filter(None, (self.dies_after, vanishes_after)):
            # So that its guest ends in time even when nobody asks the deployer.
            timer = threading.Timer(seconds, self._end_in_time, [spec.name])
            timer.daemon = True
            timer.start()

    def _end_in_time(self, name: str) -> None:
        with _lock:
            self._look_up(name)

    def _get(self, name: str, *phases: Phase) -> FakeSandbox:
        sandbox = self._look_up(name)
        if sandbox is None or sandbox.phase not in phases:
            phase = sandbox.phase if sandbox else Phase.ABSENT
            raise Rejected(f"Sandbox {name} does not run: it is {phase}.")
        return sandbox

    def _look_up(self, name: str) -> FakeSandbox | None:
        """Find a sandbox after what its knobs have let happen to it by now."""
        sandbox = _sandboxes[self.instance].get(name)
        now = time.monotonic()
        if sandbox and sandbox.vanishes_at is not None and sandbox.vanishes_at <= now:
            self.vanish(name)
            return None
        if sandbox and sandbox.guest and sandbox.dies_at is not None and sandbox.dies_at <= now:
            self.kill(name, exit_code=1)
        return sandbox

"""
Sandboxes on this host, each in namespaces of its own, made by bubblewrap.

As root, each sandbox runs as a user of its own that owns nothing else; otherwise as the server's
user. Either way it is uid 1000 inside, without any capability.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from deployers.base import Deployer, Isolation
from deployers.bubblewrap import cgroups, host, network, processes
from deployers.bubblewrap.command import Python
from deployers.bubblewrap.observe import observe
from deployers.bubblewrap.plan import make_plan
from deployers.bubblewrap.record import Record
from deployers.bubblewrap.startup import Startup
from deployers.bubblewrap.state import Place, StateDirectory
from deployers.bubblewrap.watching import Watch
from deployers.errors import Rejected, Unavailable, UnsupportedSpec
from deployers.observation import Observation, Phase
from deployers.specs import Network, SandboxSpec

KILL_SECONDS = 20

UIDS = range(0x70000000, 0x7FFFFFFF)
"""
For sandboxes started by root: systemd's list of user ids (UIDS-GIDS) names these as unused, above
all ranges that distributions, containers and directory services take theirs from.
"""


class BubblewrapDeployer(Deployer):
    """
    Start sandboxes as processes of this host.

    state_dir holds what is known of them and their sockets; several installations may share it.
    guest_dir is the package `guest`, python the interpreter that runs it, whose virtual
    environment has the guest's requirements. command replaces `python -m guest`.
    use_cgroups=False leaves the ceilings to rlimits.

    A sandbox that was stopped is continued with the spec of the new start().
    """

    isolation = Isolation.NAMESPACE
    supports_mounts = True
    supports_limits = True
    supports_logs = True
    supports_stop = True
    supports_watch = True

    def __init__(
        self,
        *,
        instance: str,
        state_dir: Path,
        guest_dir: Path,
        python: Path = Path(sys.executable),
        command: Sequence[str] | None = None,
        uids: range = UIDS,
        use_cgroups: bool = True,
    ) -> None:
        super().__init__(instance=instance)
        self._state = StateDirectory(state_dir, instance)
        self._guest_dir = Path(guest_dir)
        self._executable = Path(python)
        self._command = command or [str(python), "-P", "-m", "guest"]
        self._uids = uids
        self._use_cgroups = use_cgroups

    @functools.cached_property
    def _python(self) -> Python:
        return host.find_python(self._executable)

    @functools.cached_property
    def _features(self) -> frozenset[str]:
        host.check_programs()
        return host.bwrap_features()

    @functools.cached_property
    def _cgroups(self) -> cgroups.Cgroups | None:
        return cgroups.find() if self._use_cgroups else None

    def check(self) -> str:
        host.check_programs()
        host.try_namespaces(self._uid("check"))
        self._refuse_to_show_state([*self._python.prefixes, self._guest_dir])
        with _as_our_errors(f"The state directory {self._state.root}"):
            self._state.prepare()
        host.precompile(self._guest_dir)
        if self._cgroups:
            held = ", ".join(sorted(self._cgroups.parents))
            ceilings = f"ceilings by cgroup v{self._cgroups.version} ({held})"
        else:
            ceilings = "ceilings by rlimit (memory per process, no cpu; no cgroup can be made)"
        missing = network.missing()
        outbound = f"no outbound network: {missing}" if missing else "outbound by slirp4netns"
        return f"bubblewrap {host.bwrap_version()}, {ceilings}, {outbound}"

    def validate(self, spec: SandboxSpec) -> None:
        super().validate(spec)
        plan = make_plan(spec)
        if plan.network is Network.OUTBOUND and (reason := network.missing()):
            raise UnsupportedSpec(f"Local sandboxes have no outbound network here: {reason}.")
        if spec.workspace:
            host.refuse_system_directory(spec.workspace)
        shown = [spec.workspace, *(mount.source for mount in spec.mounts)]
        self._refuse_to_show_state([path for path in shown if path])

    def start(self, spec: SandboxSpec) -> Observation:
        self.validate(spec)
        shown = [spec.workspace, self._guest_dir, *(mount.source for mount in spec.mounts)]
        for path in filter(None, shown):
            if not path.is_dir():
                raise Rejected(f"{path}, which {spec.name} is to see, is not a directory.")
        self._refuse_to_show_state([*self._python.prefixes, self._guest_dir])
        with _as_our_errors(spec.name), self._state.locked(spec.name, create=True) as place:
            seen = observe(place, held=True)
            if seen.phase is Phase.READY:
                return seen
            if seen.phase is not Phase.STOPPED:
                self._end(place)
                place.delete(keep_directory=True)
            startup = self._startup(place, spec)
            try:
                startup.run()
            except BaseException:
                if seen.phase is Phase.STOPPED:
                    self._put_to_rest(place)
                else:
                    self._discard(place)
                raise
            return startup.laps.added_to(observe(place, held=True))

    def inspect(self, name: str) -> Observation:
        with _as_our_errors(name):
            return observe(self._state.place(name))

    def inspect_all(self) -> Iterator[Observation]:
        for name in self._state.names():
            seen = self.inspect(name)
            if seen.phase is not Phase.ABSENT:
                yield seen

    def remove(self, name: str) -> None:
        with _as_our_errors(name), self._state.locked(name) as place:
            if place:
                self._discard(place)

    def stop(self, name: str) -> None:
        with _as_our_errors(name), self._state.locked(name) as place:
            phase = observe(place, held=True).phase if place else Phase.ABSENT
            if phase in (Phase.ABSENT, Phase.BROKEN):
                raise Rejected(f"{name} cannot be stopped: it is {phase}.")
            self._put_to_rest(place)

    def watch(self, stop: threading.Event) -> Iterator[str]:
        return Watch(self._state).names(stop)

    def logs(self, name: str, *, lines: int = 200) -> str:
        with _as_our_errors(name):
            return self._state.place(name).tail(lines)

    def _startup(self, place: Place, spec: SandboxSpec) -> Startup:
        plan = make_plan(spec)
        owned = str(spec.workspace.resolve()) if spec.workspace else spec.name
        return Startup(
            place=place,
            spec=spec,
            plan=plan,
            record=Record(
                started_at=datetime.now(UTC).isoformat(),
                memory_mb=plan.memory_mb,
                cgroups=[str(path) for path in self._group_paths(place)],
            ),
            # Sandboxes that share a workspace share its owner.
            uid=self._uid(owned),
            python=self._python,
            guest_dir=self._guest_dir,
            command=self._command,
            cgroups=self._cgroups,
            features=self._features,
        )

    def _uid(self, key: str) -> int | None:
        """Return the user that owns what has this key; None for the server's own."""
        if os.geteuid() != 0:
            return None
        digest = hashlib.sha256(f"{self.instance}/{key}".encode()).digest()
        return self._uids[int.from_bytes(digest[:8]) % len(self._uids)]

    def _group_paths(self, place: Place) -> list[Path]:
        return self._cgroups.paths(place.group) if self._cgroups else []

    def _refuse_to_show_state(self, shown: Sequence[Path]) -> None:
        root, home = self._state.root.resolve(), self._state.home.resolve()
        for path in [Path("/usr"), *shown]:
            seen = path.resolve()
            if root.is_relative_to(seen) or seen.is_relative_to(home):
                raise Rejected(
                    f"{path} would be shown to a sandbox and holds what belongs to others: the "
                    f"state directory {self._state.root} must be neither above nor below it."
                )

    def _end(self, place: Place) -> None:
        """End every process of a sandbox, and undo its ceilings."""
        record = place.read()
        groups = self._group_paths(place)
        ending: list[processes.Process | None] = []
        if record and record.is_of_this_boot():
            groups += [Path(path) for path in record.cgroups]
            ending += [place.first_process(), record.network, record.monitor]
            if record.monitor and record.monitor.is_alive():
                ending += processes.children(record.monitor.pid)
        # The first process takes all others of its namespace along before it is gone itself.
        if not processes.kill(filter(None, ending), seconds=KILL_SECONDS):
            raise Unavailable(
                f"The processes of {place.directory.name} did not end within {KILL_SECONDS} s."
            )
        cgroups.remove(groups, seconds=KILL_SECONDS)

    def _put_to_rest(self, place: Place) -> None:
        self._end(place)
        place.socket.unlink(missing_ok=True)
        place.update(stage="stopped", monitor=None, network=None, cgroups=[])

    def _discard(self, place: Place) -> None:
        place.update(stage="removing")
        self._end(place)
        place.delete()


@contextlib.contextmanager
def _as_our_errors(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"{what}: {error}.") from error

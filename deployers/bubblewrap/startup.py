"""
How a sandbox comes to run: two waits, so that nothing runs that is not recorded and limited.

First the launcher waits outside: its pid is written down, its ceilings are set. Then the first
program inside waits: the network is connected. Then it becomes the guest.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from deployers.bubblewrap import host, launch, network
from deployers.bubblewrap.cgroups import BWRAP_PROCESSES, Cgroups
from deployers.bubblewrap.command import (
    GUEST,
    Bind,
    Python,
    bwrap_arguments,
    environment,
    etc_files,
    exports,
)
from deployers.bubblewrap.plan import MIB, Plan
from deployers.bubblewrap.processes import Process
from deployers.bubblewrap.record import Record
from deployers.bubblewrap.state import Place
from deployers.errors import Rejected, Unavailable
from deployers.observation import Laps
from deployers.specs import WORKSPACE, Network, SandboxSpec

BACKLOG = 128
OPEN_FILES = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Startup:
    """One start of one sandbox, whose place the caller has locked."""

    place: Place
    spec: SandboxSpec
    plan: Plan
    record: Record
    uid: int | None
    """The user it runs as; None for the server's own."""

    python: Python
    guest_dir: Path
    command: Sequence[str]
    cgroups: Cgroups | None
    features: frozenset[str]
    laps: Laps = field(default_factory=Laps)

    def run(self) -> None:
        """Bring it up to where its guest begins; on an error the caller clears away."""
        workspace = self._prepare_workspace()
        self.place.status.unlink(missing_ok=True)
        self.place.write(self.record)
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(_listening(self.place.socket))
            flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND
            log_fd = stack.enter_context(_open(os.open(self.place.log, flags, 0o600)))
            status_fd = stack.enter_context(_open(os.open(self.place.status, flags, 0o600)))
            alive_fd, sync_fd = (stack.enter_context(_open(fd)) for fd in os.pipe())
            files = {
                path: stack.enter_context(_in_memory(text.encode()))
                for path, text in etc_files(self.spec.name, self.plan.network).items()
            }
            binds, sources = self._stage(self._binds(workspace))
            arguments = bwrap_arguments(
                self.plan,
                hostname=self.spec.name,
                binds=binds,
                files=files,
                status_fd=status_fd,
                sync_fd=sync_fd,
                features=self.features,
            )
            encoded = b"".join(os.fsencode(argument) + b"\0" for argument in arguments)
            arguments_fd = stack.enter_context(_in_memory(encoded))
            # Not on a command line, where every user of this host could read the secrets.
            env = exports(environment(self.spec, self.python, listener.fileno()))
            env_fd = stack.enter_context(_in_memory(os.fsencode(env)))
            begin = ". /proc/self/fd/0; " + launch.WAIT + launch.HANDOVER
            # The watching shell never sees the environment: the one that it starts reads it.
            inside = ["/bin/sh", "-c", launch.WATCH, "sh"]
            inside += ["/bin/sh", "-c", begin, "sh", *self.command]
            bwrap = [launch.program("bwrap"), "--args", str(arguments_fd), "--"]
            command = [*launch.as_user(self.uid), *bwrap, *inside]
            steps = launch.Launch(
                launch.staging_script(bool(sources)),
                [*launch.staging_arguments(sources), *command],
                log_fd=log_fd,
                stdin_fd=env_fd,
                fds=[listener.fileno(), status_fd, sync_fd, arguments_fd, *files.values()],
                private_mounts=bool(sources),
            )
            with steps:
                self._limit_from_outside(self._next(steps))
                steps.go()
                self._limit_from_inside(self._next(steps))
                # It has been read, and pid 1 keeps it open for all inside to see.
                os.ftruncate(env_fd, 0)
                if self.plan.network is Network.OUTBOUND:
                    self.laps.note("created")
                    self._connect(alive_fd)
                    self.laps.note("network")
                steps.go()
                self.laps.note("started")

    def _next(self, steps: launch.Launch) -> int:
        pid = steps.wait()
        if pid is None:
            said = self.place.tail(10)
            raise Rejected(f"{self.spec.name} could not be started: {host.explain(said)}")
        return pid

    def _limit_from_outside(self, pid: int) -> None:
        self.record.monitor = Process.of(pid)
        self.place.write(self.record)
        lower(pid, resource.RLIMIT_CORE, 0)
        lower(pid, resource.RLIMIT_NOFILE, OPEN_FILES)
        lower(pid, resource.RLIMIT_FSIZE, self.plan.file_size_mb * MIB)
        if self.cgroups:
            group = self.place.group
            plan = self.plan
            self.cgroups.make(
                group, memory_mb=plan.memory_mb, processes=plan.processes, cpus=plan.cpus
            )
            self.cgroups.add(group, pid)
            return
        lower(pid, resource.RLIMIT_DATA, self.plan.memory_mb * MIB)
        if self.uid is not None:
            # All that this user runs is the sandbox.
            lower(pid, resource.RLIMIT_NPROC, self.plan.processes + BWRAP_PROCESSES)

    def _limit_from_inside(self, pid: int) -> None:
        if not self.cgroups and self.uid is None:
            # Only in the sandbox's own user namespace: outside, whatever else the server's user
            # runs would be counted too.
            lower(pid, resource.RLIMIT_NPROC, self.plan.processes)

    def _connect(self, alive_fd: int) -> None:
        first = self.place.first_process()
        if first is None:
            raise Unavailable(f"{self.spec.name} ended before its network was connected.")
        self.record.network = network.connect(
            first,
            uid=self.uid,
            alive_fd=alive_fd,
            private_networks=self.plan.private_networks,
            log=self.place.network_log,
        )
        self.place.write(self.record)

    def _prepare_workspace(self) -> Path:
        workspace = self.spec.workspace or self.place.workspace
        if self.spec.workspace is None:
            workspace.mkdir(mode=0o700, exist_ok=True)
        if self.uid is not None:
            host.give_to(workspace, self.uid)
        elif not os.access(workspace, os.W_OK | os.X_OK):
            raise Rejected(f"The workspace {workspace} is not writable for the server's user.")
        return workspace

    def _binds(self, workspace: Path) -> list[Bind]:
        return [
            *(Bind(tree, str(tree)) for tree in self.python.prefixes),
            Bind(self.guest_dir, f"{GUEST}/guest"),
            Bind(workspace, WORKSPACE, read_only=False),
            *(Bind(each.source, each.target, each.read_only) for each in self.spec.mounts),
        ]

    def _stage(self, binds: list[Bind]) -> tuple[list[Bind], list[Path]]:
        """Replace what the sandbox's user cannot reach by where the launcher will show it."""
        sources: list[Path] = []
        for index, bind in enumerate(binds):
            source = bind.source.resolve()
            if self.uid is not None and not host.is_reachable(source, self.uid):
                sources.append(source)
                source = launch.staged(len(sources) - 1)
            binds[index] = replace(bind, source=source)
        return binds, sources


def lower(pid: int, what: int, value: int) -> None:
    """Set a process's soft and hard limit, which without root cannot be raised."""
    _, hard = resource.prlimit(pid, what)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.prlimit(pid, what, (value, value))


@contextlib.contextmanager
def _open(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _in_memory(content: bytes) -> Iterator[int]:
    """Give a descriptor that reads content, which no file system holds."""
    with _open(os.memfd_create("sandbox")) as fd:
        os.write(fd, content)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd


@contextlib.contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    """
    Listen at path; the guest inherits it.

    Requests wait here until the guest accepts them, and are refused as soon as it is gone.
    """
    with socket.socket(socket.AF_UNIX) as listener:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(BACKLOG)
        yield listener

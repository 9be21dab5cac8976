"""
Start programs and watch them from the event loop, without a thread for each.

asyncio's own subprocesses are not used: on Python 3.11 they take a thread for each child, they
wait for the end of the pipes rather than of the program, and they know nothing of groups.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .capture import Capture
from .spawning import spawn

Sink = Callable[[bytes], None]

READ_SIZE = 64 * 1024
TERMINATION_GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL."""

_open: set[Child] = set()


class Child:
    """
    A running program, the leader of a session of its own.

    Its output goes to the sinks as it comes. exited becomes its exit code (minus the signal's
    number, as in subprocess) when the program itself ends, whatever its children keep open.
    Raises OSError when the program cannot be started.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        cwd: str,
        env: Mapping[str, str],
        stdout: Sink,
        stderr: Sink,
        stdin: int | None = None,
        executable: str | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._pipes: dict[int, Sink] = {}
        self._pidfd: int | None = None
        self.exited: asyncio.Future[int] = self._loop.create_future()
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        try:
            self.pid = spawn(
                argv,
                executable=executable,
                cwd=cwd,
                env=env,
                stdin=stdin,
                stdout=out_write,
                stderr=err_write,
            )
        except BaseException:
            os.close(out_read)
            os.close(err_read)
            raise
        finally:
            os.close(out_write)
            os.close(err_write)
        _open.add(self)
        self._watch_pipe(out_read, stdout)
        self._watch_pipe(err_read, stderr)
        self._watch_exit()

    def _watch_pipe(self, fd: int, sink: Sink) -> None:
        os.set_blocking(fd, False)
        self._pipes[fd] = sink
        self._loop.add_reader(fd, self._read, fd)

    def _read(self, fd: int) -> int:
        try:
            data = os.read(fd, READ_SIZE)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""
        if data:
            self._pipes[fd](data)
        else:
            self._close_pipe(fd)
        return len(data)

    def _close_pipe(self, fd: int) -> None:
        self._loop.remove_reader(fd)
        del self._pipes[fd]
        os.close(fd)
        self._forget_if_over()

    def _watch_exit(self) -> None:
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except OSError:
            # Sandboxed kernels may lack pidfd_open; then a thread waits.
            threading.Thread(target=self._wait_in_thread, daemon=True).start()
        else:
            self._loop.add_reader(self._pidfd, self._on_exit)

    def _wait_in_thread(self) -> None:
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(RuntimeError):  # the loop may be closed by then
            self._loop.call_soon_threadsafe(self._on_exit)

    def _on_exit(self) -> None:
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
        for fd in list(self._pipes):
            self._drain(fd)
        self.exited.set_result(self._exit_code())
        self._forget_if_over()

    def _exit_code(self) -> int:
        try:
            return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        except ChildProcessError:
            return 0  # whoever started the guest had it ignore SIGCHLD: nobody knows the code

    def _drain(self, fd: int) -> None:
        # At most one pipe full: a child left behind may write for ever.
        left = fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
        while left > 0 and fd in self._pipes:
            count = self._read(fd)
            if not count:
                break
            left -= count

    def _forget_if_over(self) -> None:
        if not self._pipes and self.exited.done():
            _open.discard(self)

    def ignore_output(self) -> None:
        """Throw away what still comes; the pipes stay open, so that nobody gets a SIGPIPE."""
        for fd in self._pipes:
            self._pipes[fd] = _discard

    def signal_group(self, signum: int) -> None:
        """Send a signal to the program and whatever it started in its session's first group."""
        if self.exited.done() and not self._pipes:
            return  # nothing is known to be left, and the number may belong to someone else
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signum)

    async def end(self, grace: float = TERMINATION_GRACE) -> int:
        """Terminate the group, kill what does not go in time, and return the exit code."""
        self.signal_group(signal.SIGTERM)
        await asyncio.wait([self.exited], timeout=grace)
        # Also when the leader is gone: others of its group may have ignored the SIGTERM.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        # A future must not be awaited directly: a cancelled waiter would cancel it.
        await asyncio.wait([self.exited])
        return self.exited.result()


def is_ending(pid: int) -> bool:
    """Tell whether a child's first thread is dead, whatever its others still do."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except FileNotFoundError:
        return True


def _discard(_data: bytes) -> None:
    pass


def kill_all() -> None:
    """Kill every group that still has a running leader or an open pipe."""
    for child in list(_open):
        child.signal_group(signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program that was run to its end ended."""

    stdout: Capture
    stderr: Capture
    exit_code: int
    timed_out: bool


async def run(
    argv: Sequence[str],
    *,
    cwd: str,
    env: Mapping[str, str],
    limit: float,
    output_limit: int,
    stdin: int | None = None,
    executable: str | None = None,
) -> Outcome:
    """Run a program for at most limit seconds; cancelling the call ends its whole group."""
    stdout, stderr = Capture(output_limit), Capture(output_limit)
    child = Child(
        argv,
        cwd=cwd,
        env=env,
        stdin=stdin,
        stdout=stdout.add,
        stderr=stderr.add,
        executable=executable,
    )
    try:
        await asyncio.wait([child.exited], timeout=limit)
        timed_out = not child.exited.done()
        exit_code = await child.end() if timed_out else child.exited.result()
    except asyncio.CancelledError:
        await child.end()
        raise
    finally:
        child.ignore_output()
    return Outcome(stdout, stderr, exit_code, timed_out)

"""One kernel process and the messages exchanged with it. Imports jupyter_client when used."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..capture import Capture
from ..config import Config
from ..processes import Child, is_ending

if TYPE_CHECKING:
    from jupyter_client.asynchronous.client import AsyncKernelClient

LAUNCHER = os.path.join(os.path.dirname(__file__), "launch.py")
KERNEL_LOG_LIMIT = 16 * 1024
IDLE_GRACE = 2.0
"""Seconds after a cell's reply in which its last output should have come."""

PROBE_INTERVAL = 0.2

Message = dict[str, Any]


class KernelFailed(Exception):
    """The kernel could not be started, or ended; says why."""


class Execution:
    """A cell on its way: where its output goes, and its reply once it is there."""

    def __init__(self, receive: Callable[[str, Message], None]) -> None:
        self._receive = receive
        self._idle = False
        self.reply: Message | None = None
        self.finished = asyncio.Event()

    def take_reply(self, content: Message) -> None:
        self.reply = content
        if self._idle:
            self.finished.set()
        else:
            # The "idle" behind the last output should follow; wait for it, but not for ever.
            asyncio.get_running_loop().call_later(IDLE_GRACE, self.finished.set)

    def take_output(self, kind: str, content: Message) -> None:
        if kind != "status":
            self._receive(kind, content)
        elif content.get("execution_state") == "idle":
            self._idle = True
            if self.reply is not None:
                self.finished.set()


class Kernel:
    """
    A running kernel. It talks over Unix sockets in a directory only its user can enter.

    Executions are not queued here: run one at a time.
    """

    def __init__(self, directory: str, client: AsyncKernelClient, child: Child, log: Capture):
        self._directory = directory
        self._client = client
        self._child = child
        self._log = log
        self._executions: dict[str, Execution] = {}
        self._probe: asyncio.Event = asyncio.Event()
        self._pumps = [
            asyncio.create_task(self._pump(client.shell_channel, self._on_shell)),
            asyncio.create_task(self._pump(client.iopub_channel, self._on_iopub)),
        ]

    @classmethod
    async def start(cls, config: Config, limit: float) -> Kernel:
        """Start a kernel and wait until it answers; raises KernelFailed."""
        import zmq
        import zmq.asyncio
        from jupyter_client.asynchronous.client import AsyncKernelClient
        from jupyter_client.connect import write_connection_file

        directory = tempfile.mkdtemp(prefix="kernel-")
        file, connection = write_connection_file(
            os.path.join(directory, "kernel.json"),
            transport="ipc",
            ip=os.path.join(directory, "channel"),
            key=os.urandom(32).hex().encode(),
        )
        log = Capture(KERNEL_LOG_LIMIT)
        try:
            child = Child(
                # -P: a json.py in the workspace must not get in the way of the kernel's start.
                [
                    *(config.kernel_python, "-P", LAUNCHER, "-f", file),
                    "--HistoryManager.hist_file=:memory:",
                    "--IPythonKernel._execute_sleep=0",
                ],
                cwd=config.workspace,
                env=_environment(config),
                stdout=log.add,
                stderr=log.add,
            )
        except OSError as error:
            shutil.rmtree(directory, ignore_errors=True)
            raise KernelFailed(f"{config.kernel_python}: {error.strerror}") from error
        context = zmq.asyncio.Context()
        # The sockets appear only when the kernel is up; the default looks every 100 ms.
        context.setsockopt(zmq.RECONNECT_IVL, 10)
        # Dropped messages would be lost output; the pumps below keep nothing waiting.
        context.setsockopt(zmq.RCVHWM, 0)
        client = AsyncKernelClient(context=context)
        client.load_connection_info(connection)
        client.start_channels(stdin=False, hb=False, control=False)
        kernel = cls(directory, client, child, log)
        try:
            await kernel._wait_until_ready(limit)
        except BaseException:
            await kernel.end()
            raise
        return kernel

    async def _wait_until_ready(self, limit: float) -> None:
        """Ask until the output channel echoes: only then is it subscribed and loses nothing."""
        deadline = asyncio.get_running_loop().time() + limit
        while not self._probe.is_set():
            if self.exited.done():
                raise KernelFailed(self.ending())
            if asyncio.get_running_loop().time() > deadline:
                raise KernelFailed(f"it gave no answer for {limit:g} s. {self._log_tail()}")
            self._client.kernel_info()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._probe.wait(), PROBE_INTERVAL)

    @property
    def exited(self) -> asyncio.Future[int]:
        return self._child.exited

    async def has_died(self) -> bool:
        """
        Tell whether the process has ended, also if it is only just ending.

        A process with threads shows as ended through its pidfd when the last one is gone; a
        cell that is sent until then would be lost.
        """
        if not self.exited.done() and is_ending(self._child.pid):
            await asyncio.wait([self.exited])
        return self.exited.done()

    def execute(self, code: str, receive: Callable[[str, Message], None]) -> Execution:
        """Send a cell; its output goes to receive as (message type, content)."""
        execution = Execution(receive)
        id_ = self._client.execute(code, allow_stdin=False, stop_on_error=False)
        self._executions = {id_: execution}
        return execution

    async def finish(self, execution: Execution, limit: float) -> bool:
        """Wait for the end of a cell or of the kernel; return False when neither came in time."""
        finished = asyncio.ensure_future(execution.finished.wait())
        try:
            await asyncio.wait(
                {finished, self.exited}, timeout=limit, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            finished.cancel()
        return execution.finished.is_set() or self.exited.done()

    def interrupt(self) -> None:
        self._child.signal_group(signal.SIGINT)

    async def end(self) -> None:
        """Kill the kernel with everything in its group, and clean up after it."""
        for pump in self._pumps:
            pump.cancel()
        await asyncio.wait(self._pumps)
        self._client.stop_channels()
        self._client.context.destroy(linger=0)
        self._child.ignore_output()
        await self._child.end(grace=0)
        self.remove_directory()

    def remove_directory(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)

    def ending(self) -> str:
        """Say how the process ended."""
        code = self.exited.result()
        how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        return f"it ended with {how}. {self._log_tail()}".strip()

    def _log_tail(self) -> str:
        tail = self._log.text().strip()[-2000:]
        return f"It last said: {tail}" if tail else ""

    async def _pump(self, channel: Any, deliver: Callable[[str, str, Message], None]) -> None:
        while True:
            try:
                message = await channel.get_msg()
                parent = message["parent_header"].get("msg_id", "")
                deliver(message["header"]["msg_type"], parent, message["content"])
            except (ValueError, TypeError, KeyError, AttributeError):
                continue  # not a message: user code can write to these sockets, too
            # A flood of messages is read without ever waiting; leave others a turn.
            await asyncio.sleep(0)

    def _on_shell(self, kind: str, parent: str, content: Message) -> None:
        if kind == "execute_reply" and parent in self._executions:
            self._executions[parent].take_reply(content)

    def _on_iopub(self, kind: str, parent: str, content: Message) -> None:
        self._probe.set()
        if parent in self._executions:
            self._executions[parent].take_output(kind, content)


def _environment(config: Config) -> dict[str, str]:
    env = {
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        **config.child_env,
        # The kernel ends by itself when its parent is gone.
        "JPY_PARENT_PID": str(os.getpid()),
        "JUPYTER_PLATFORM_DIRS": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    return env

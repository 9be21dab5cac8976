"""Call a deployer as an ordinary user, in a process of its own, also when the tests run as root."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path

from deployers.base import Deployer

UID = 64321


class OtherUser:
    """
    Forward every method of a deployer, several at once, to a process that runs as UID.

    It is a fork, because the interpreter of the tests may lie where UID cannot read it.
    """

    def __init__(self, address: Path, make: Callable[[], Deployer]) -> None:
        self._address = str(address)
        self._listener = Listener(self._address, backlog=64)
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.setgroups([])
                os.setresgid(UID, UID, UID)
                os.setresuid(UID, UID, UID)
                deployer = make()
                while True:
                    call = self._listener.accept()
                    threading.Thread(target=_serve, args=(call, deployer)).start()
            finally:
                os._exit(1)

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)

        def ask(*args, **options) -> object:
            with Client(self._address) as connection:
                connection.send((name, args, options))
                answer, error = connection.recv()
            if error:
                raise error
            return answer

        return ask if name not in FLAGS else ask()

    def watch(self, stop: threading.Event) -> Iterator[str]:
        connection = Client(self._address)
        connection.send(("watch", (), {}))
        connection.recv()
        return self._names(connection, stop)

    @staticmethod
    def _names(connection: Connection, stop: threading.Event) -> Iterator[str]:
        with connection:
            while not stop.is_set():
                if connection.poll(0.05):
                    yield connection.recv()

    def close(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        self._listener.close()


FLAGS = {
    "instance",
    "isolation",
    "keeps_files_when_stopped",
    "needs_host_port",
    "supports_images",
    "supports_limits",
    "supports_logs",
    "supports_mounts",
    "supports_network",
    "supports_pause",
    "supports_stop",
    "supports_watch",
}


def _serve(connection: Connection, deployer: Deployer) -> None:
    with connection:
        name, args, options = connection.recv()
        if name == "watch":
            names = deployer.watch(threading.Event())
            connection.send("")
            for each in names:
                connection.send(each)
        try:
            answer = getattr(deployer, name)
            if callable(answer):
                answer = answer(*args, **options)
            connection.send((list(answer) if name == "inspect_all" else answer, None))
        except Exception as error:
            connection.send((None, error))

"""A fake guest that can be frozen: it is reached as before, and neither acts nor answers."""

from __future__ import annotations

import io
import socket
import threading

from deployers.fake.guest import FakeGuest
from deployers.fake.protocol import Handler


class FreezableGuest(FakeGuest):
    def __init__(self, **options) -> None:
        self.thawed = threading.Event()
        self.thawed.set()
        super().__init__(**options)

    def finish_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:
        FreezableHandler(request, client_address, self)

    def close(self) -> None:
        super().close()
        self.thawed.set()


class FreezableHandler(Handler):
    server: FreezableGuest

    def setup(self) -> None:
        super().setup()
        self.wfile = _Writer(self.connection, self.server.thawed)

    def parse_request(self) -> bool:
        self.server.thawed.wait()
        return super().parse_request()


class _Writer(io.BufferedIOBase):
    def __init__(self, connection: socket.socket, thawed: threading.Event) -> None:
        self._connection = connection
        self._thawed = thawed

    def writable(self) -> bool:
        return True

    def write(self, content: bytes) -> int:
        self._thawed.wait()
        self._connection.sendall(content)
        return len(content)

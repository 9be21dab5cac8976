"""
A guest that plays its part: the guest protocol over HTTP, in memory, and nothing is executed.

With can_bind=False it is an older guest, which has no POST /v1/bind.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Mapping
from http.server import ThreadingHTTPServer
from pathlib import Path

from deployers.fake.files import Files
from deployers.fake.protocol import Handler


class FakeGuest(ThreadingHTTPServer):
    """Listens on 127.0.0.1 from its creation until close(), which also cuts open connections."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        *,
        env: Mapping[str, str],
        files: dict[str, bytes],
        workspace: Path | None = None,
        port: int = 0,
        delay: float = 0,
        status: int = 200,
        can_bind: bool = True,
    ) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.env = dict(env)
        self.can_bind = can_bind
        self.bound: dict[str, object] | None = None
        self.binding = threading.Lock()
        self.files = Files(files, workspace)
        self.status = status
        self.healthy_at = time.monotonic() + delay
        self.ended = threading.Event()
        self._connections: set[socket.socket] = set()
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self._accept, name=f"guest {self.server_port}", daemon=True).start()

    def _accept(self) -> None:
        # Not serve_forever(), which looks up twice a second to see whether it should end.
        while not self.ended.is_set():
            try:
                connection, address = self.socket.accept()
            except OSError:
                break
            self._connections.add(connection)
            self.process_request(connection, address)
        self.server_close()

    def shutdown_request(self, request: socket.socket) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, *_) -> None:
        """A caller that went away is no news."""

    def close(self) -> None:
        # Before the calls that wait are woken, or they would still answer.
        for connection in [self.socket, *self._connections]:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.ended.set()

"""uvicorn's protocol, except that an answer's head leaves together with the start of its body."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LARGEST_COPY = 64 * 1024
"""Bytes; more than that is cheaper to send apart than to copy behind the head."""


class JoiningProtocol(HttpToolsProtocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(JoiningTransport(transport))  # type: ignore[arg-type]


class JoiningTransport:
    """
    A transport that holds back a head until the next write, or until the loop comes round.

    Two writes are two packets: twice the system calls, and a caller who is woken up twice.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._held = b""
        self._flushing: asyncio.Handle | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self._held:
            if len(data) <= LARGEST_COPY:
                data = self._held + data
                self._forget()
            else:
                self.flush()
        elif data.startswith(b"HTTP/1.1 ") and data.endswith(b"\r\n\r\n"):
            self._held = data
            self._flushing = self._loop.call_soon(self.flush)
            return
        self._transport.write(data)

    def flush(self) -> None:
        held = self._held
        if held:
            self._forget()
            self._transport.write(held)

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def _forget(self) -> None:
        self._held = b""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None

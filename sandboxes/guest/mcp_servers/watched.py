"""
Notice an answer that breaks off.

The mcp package's streamable HTTP client says nothing when the server dies in the middle of an
answer: the call would wait for its time limit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import httpx

OnBroken = Callable[[httpx.TransportError], None]


class WatchedTransport(httpx.AsyncHTTPTransport):
    """Tell of each answer to a POST that ended too early."""

    def __init__(self, on_broken: OnBroken) -> None:
        super().__init__()
        self._on_broken = on_broken

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        # Not the GET that waits for notifications: proxies cut it, and it is opened again.
        if request.method == "POST":
            response.stream = _WatchedStream(response.stream, self._on_broken)
        return response


class _WatchedStream(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, on_broken: OnBroken) -> None:
        self._stream = stream
        self._on_broken = on_broken

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._stream:
                yield chunk
        except httpx.TransportError as error:
            self._on_broken(error)
            raise

    async def aclose(self) -> None:
        await self._stream.aclose()

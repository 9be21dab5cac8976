"""Keep the beginning and the end of an output of any length in constant memory."""

from __future__ import annotations


class Capture:
    """The first and the last half of limit bytes; what falls between is counted, not kept."""

    def __init__(self, limit: int) -> None:
        self._half = max(1, limit // 2)
        self._head = bytearray()
        self._tail = bytearray()
        self._seen = 0

    def add(self, data: bytes) -> None:
        self._seen += len(data)
        room = self._half - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if data:
            self._tail += data
            # Trimmed only at twice the size, so that each byte is moved at most once on average.
            if len(self._tail) > 2 * self._half:
                del self._tail[: -self._half]

    def clear(self) -> None:
        self._head.clear()
        self._tail.clear()
        self._seen = 0

    @property
    def bytes_cut(self) -> int:
        return max(0, self._seen - len(self._head) - min(len(self._tail), self._half))

    def raw(self) -> bytes:
        """Return everything that was kept, without a note about what was not."""
        return bytes(self._head) + bytes(self._tail[-self._half :])

    def text(self) -> str:
        """Decode what was kept; bytes that are not UTF-8 become U+FFFD."""
        if not self.bytes_cut:
            return self.raw().decode("utf-8", "replace")
        head = self._head.decode("utf-8", "replace")
        tail = self._tail[-self._half :].decode("utf-8", "replace")
        return f"{head}\n… {self.bytes_cut} bytes cut here …\n{tail}"

"""
Start an IPython kernel whose cells keep the output of their child processes.

Run by its path, in the kernel's interpreter, which may have no other part of the guest.
ipykernel reads what child processes and C code write in a thread of its own; a cell that ended
before that thread had its turn lost their output. Here it is also read in the thread that
writes and flushes, so that it comes in order, and completely before the cell's reply.
"""

from __future__ import annotations

import codecs
import os
import select
import threading

from ipykernel.iostream import OutStream
from ipykernel.kernelapp import IPKernelApp

CHUNK = 64 * 1024
"""Bytes read at once: as many as a pipe holds."""


class CompleteOutStream(OutStream):
    """A stream that also has, in order, what was written to its file descriptor."""

    def _setup_stream_redirects(self, name: str) -> None:
        self._reading = threading.RLock()
        self._ready = select.poll()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        super()._setup_stream_redirects(name)
        self._ready.register(self._fid, select.POLLIN)

    def write(self, string: str) -> int | None:
        self._read_descriptor()
        return super().write(string)

    def flush(self) -> None:
        self._read_descriptor(complete=True)
        super().flush()

    def _watch_pipe_fd(self) -> None:
        """Publish what comes while nothing is written or flushed; ipykernel's own thread."""
        arrival = select.poll()
        arrival.register(self._fid, select.POLLIN)
        while self._should_watch:
            arrival.poll()
            self._read_descriptor()

    def _read_descriptor(self, *, complete: bool = False) -> None:
        """Take over what the descriptor holds; with complete, also half a character."""
        if not self._should_watch or not self._is_master_process():
            return  # a forked child must not take its parent's output
        with self._reading:
            while self._ready.poll(0):
                chunk = os.read(self._fid, CHUNK)
                self._publish(self._decoder.decode(chunk))
                os.write(self._original_stdstream_copy, chunk)
            if complete:
                self._publish(self._decoder.decode(b"", final=True))

    def _publish(self, text: str) -> None:
        if text:
            super().write(text)


if __name__ == "__main__":
    # The trait takes an import path, and this module has no other name.
    IPKernelApp.launch_instance(outstream_class=f"{__name__}.{CompleteOutStream.__name__}")

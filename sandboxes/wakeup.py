"""
A bell between processes of one machine: who waits for work is woken when there is some.

A datagram to an abstract Unix socket (unix(7)), named after the installation: nothing of it
stays behind a killed process. It carries nothing and promises nothing: a bell that is not heard,
on another machine or by a second listener, costs as much as the listener's next look.
"""

from __future__ import annotations

import contextlib
import functools
import select
import signal
import socket
from types import TracebackType
from typing import Self

from sandboxes.models import Installation

KEEPER = "keeper"


@functools.cache
def _address(name: str) -> str:
    return f"\0sandboxplatform-{Installation.current_id()}-{name}"


def forget() -> None:
    """Ask the database again whose bell it is."""
    _address.cache_clear()


def ring(name: str = KEEPER) -> None:
    """Wake the listener, if there is one on this machine."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bell, contextlib.suppress(OSError):
        bell.sendto(b"!", socket.MSG_DONTWAIT, _address(name))


class Listener:
    """Hear the bell, and signals; a second listener of one name hears signals only."""

    def __init__(self, name: str = KEEPER) -> None:
        self._bell: socket.socket | None = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._bell.setblocking(False)
        try:
            self._bell.bind(_address(name))
        except OSError:
            self._bell.close()
            self._bell = None
        self._signalled, self._on_signal = socket.socketpair()
        self._signalled.setblocking(False)
        self._on_signal.setblocking(False)
        self._before = signal.set_wakeup_fd(self._on_signal.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def wait(self, seconds: float) -> bool:
        """Wait for a ring or a signal, so long at most; return whether one came."""
        heard = [one for one in (self._bell, self._signalled) if one is not None]
        ready, _, _ = select.select(heard, [], [], seconds)
        for one in ready:
            # Many rings are one.
            with contextlib.suppress(BlockingIOError):
                while one.recv(64):
                    pass
        return bool(ready)

    def close(self) -> None:
        signal.set_wakeup_fd(self._before)
        for one in (self._bell, self._signalled, self._on_signal):
            if one is not None:
                one.close()

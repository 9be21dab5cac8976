"""Keep the guest's secret out of reach of the code that runs beside it, as the same user."""

from __future__ import annotations

import contextlib
import ctypes
import os

PR_SET_DUMPABLE = 4


def hide_secret(name: str) -> None:
    """
    Close /proc/<pid>/environ and ptrace for others, then wipe the variable itself.

    Both are best effort. The wipe matters where the first does nothing: for root, and on
    kernels that do not know the flag. os.environ forgets a variable but leaves its bytes where
    /proc/<pid>/environ shows them.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with contextlib.suppress(AttributeError):
        libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.getenv.restype = ctypes.c_void_p
    libc.getenv.argtypes = [ctypes.c_char_p]
    address = libc.getenv(name.encode())
    if address:
        ctypes.memset(address, 0, len(os.environb.get(name.encode(), b"")))
    os.environ.pop(name, None)

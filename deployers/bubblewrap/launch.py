"""
Start a program in steps, each of which waits for our word, as nobody's child.

The launcher says that it is there and waits; now it can be recorded, limited and put into its
groups before anything of the sandbox runs. With our word it becomes the program. If we die, it
reads the end of the file instead of our word and ends, so that nothing unrecorded can run.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from deployers.errors import Unavailable

STEP_SECONDS = 20

WAIT = "echo; read -r go <&1 || exit 1; "
"""Say that we are here, wait for the word. Standard output is the line to us, both ways."""

BECOME = 'unset PATH; exec "$@"'
"""Become a program that is named by its path. Pid 1 inside shows the environment it got here."""

HANDOVER = 'exec "$@" </dev/null >&2'
"""Become the program, with the log as its output."""

WATCH = '"$@"; code=$?; kill -9 -1; exit "$code"'
"""
Run the program and, when it ends, end all that it left running in its pid namespace.

A sandbox without its guest can be neither used nor told from a busy one.
"""

# As root: show directories that the sandbox's user cannot reach by their paths. /sys is covered
# in the launcher's own mount namespace only, and nothing that is to be shown lies below it.
STAGE = """
count=$1; shift
mount -t tmpfs -o mode=0755 stage /sys || exit 1
index=0
while [ "$index" -lt "$count" ]; do
    mkdir "/sys/$index" && mount --rbind "$1" "/sys/$index" || exit 1
    shift
    index=$((index + 1))
done
"""

PRIVATE_MOUNTS = ("unshare", "--mount", "--propagation", "private")


def program(name: str) -> str:
    """Return the path of a program, so that it can be started without PATH."""
    return shutil.which(name) or name


def as_user(uid: int | None) -> list[str]:
    """Return what to put before a command so that it runs as uid and can never gain more."""
    if uid is None:
        return []
    drop = ["--clear-groups", "--no-new-privs", "--inh-caps=-all"]
    return [program("setpriv"), f"--reuid={uid}", f"--regid={uid}", *drop, "--"]


def staged(index: int) -> Path:
    """Return where the launcher shows the source with this index."""
    return Path("/sys", str(index))


def staging_script(is_needed: bool) -> str:
    return WAIT + (STAGE if is_needed else "") + BECOME


def staging_arguments(sources: Sequence[Path]) -> list[str]:
    return [str(len(sources)), *map(str, sources)] if sources else []


class Launch:
    """A program on its way to running; leaving the block without letting it go ends it."""

    def __init__(
        self,
        script: str,
        arguments: Sequence[str],
        *,
        log_fd: int,
        stdin_fd: int = subprocess.DEVNULL,
        fds: Sequence[int] = (),
        private_mounts: bool = False,
    ) -> None:
        """Script is for sh and runs with arguments as its "$@"; it says WAIT before all else."""
        self._ours, theirs = socket.socketpair()
        self._ours.settimeout(STEP_SECONDS)
        # The kernel then tells with each word which process said it, in our own numbering.
        self._ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        command = ["setsid", "--fork", *(PRIVATE_MOUNTS if private_mounts else ())]
        command += ["sh", "-c", script, "sh", *arguments]
        try:
            # setsid forks and ends: what it leaves behind belongs to init, which also reaps it.
            subprocess.run(
                command,
                stdin=stdin_fd,
                stdout=theirs,
                stderr=log_fd,
                pass_fds=fds,
                cwd="/",
                env={"PATH": os.environ.get("PATH", os.defpath)},
                timeout=STEP_SECONDS,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            self._ours.close()
            raise Unavailable(f"The launcher of a sandbox did not start: {error}") from error
        finally:
            theirs.close()

    def __enter__(self) -> Launch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ours.close()

    def wait(self) -> int | None:
        """Return the pid of who waits for our word now; None if it ended instead."""
        room = socket.CMSG_SPACE(struct.calcsize("3i"))
        try:
            said, extra, _, _ = self._ours.recvmsg(16, room)
        except TimeoutError as error:
            raise Unavailable(
                f"A sandbox's launcher was silent for {STEP_SECONDS} s; is this machine overloaded?"
            ) from error
        except ConnectionError:
            return None
        for level, kind, data in extra:
            if said and (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                return struct.unpack("3i", data)[0]
        return None

    def go(self) -> None:
        try:
            self._ours.sendall(b"go\n")
        except OSError as error:
            raise Unavailable("A sandbox's launcher ended while it was being prepared.") from error

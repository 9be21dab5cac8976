"""
Outbound network: slirp4netns, a user-mode TCP/IP stack that dials as an ordinary process.

What a sandbox cannot reach: the host's loopback, any other address of the host, link-local
addresses (where clouds serve their credentials) and, unless its type says otherwise, the private
address ranges. There is no IPv6 and no way in. Names are resolved by the host's resolvers.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import re
import select
import shutil
import stat
import subprocess
from pathlib import Path

from deployers.bubblewrap.launch import HANDOVER, WAIT, Launch, as_user
from deployers.bubblewrap.processes import Process
from deployers.errors import Unavailable

SECONDS = 10
NS_GET_USERNS = 0xB701
"""See ioctl_ns(2)."""

LINK_LOCAL = "169.254.0.0/16"
PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")

TUN = Path("/dev/net/tun")

# As root: slirp4netns runs as the sandbox's user, to whom the host may not show this device.
OPEN_TUN = """
mount -t tmpfs -o mode=0755 stage /sys && mknod -m 666 /sys/tun c 10 200 || exit 1
mount --bind /sys/tun /dev/net/tun || exit 1
"""


def missing() -> str | None:
    """Return why there is no outbound network here, None if there is."""
    needed = {"slirp4netns": "slirp4netns", "nsenter": "util-linux", "ip": "iproute2"}
    if absent := [package for program, package in needed.items() if not shutil.which(program)]:
        return f"{' and '.join(absent)} must be installed (apt-get install {' '.join(absent)})"
    if not TUN.exists():
        return f"{TUN} does not exist (modprobe tun; in a container: --device {TUN})"
    if os.geteuid() != 0 and not os.access(TUN, os.R_OK | os.W_OK):
        return f"{TUN} is closed to this user (chmod 0666 {TUN})"
    return None


def connect(
    first: Process, *, uid: int | None, alive_fd: int, private_networks: bool, log: Path
) -> Process:
    """
    Give the sandbox of this first process its network; return the process that carries it.

    It ends when the other end of alive_fd, a pipe, is closed, which only the sandbox holds.
    """
    with log.open("ab") as log_file:
        net = os.open(f"/proc/{first.pid}/ns/net", os.O_RDONLY)
        # Not the namespace that the sandbox's processes are in, but the one around it, where
        # bwrap set the network up: user namespaces may be forbidden inside.
        owner = fcntl.ioctl(net, NS_GET_USERNS)
        try:
            carrier = _carry(net, owner, uid, alive_fd, log_file.fileno())
            _close_routes(net, owner, uid, private_networks)
        except (subprocess.SubprocessError, OSError) as error:
            said = getattr(error, "stderr", "") or log.read_text(errors="replace")[-500:]
            raise Unavailable(
                f"The network could not be set up: {error}; {said.strip()}"
            ) from error
        finally:
            os.close(owner)
            os.close(net)
    return carrier


def _carry(net: int, owner: int, uid: int | None, alive_fd: int, log_fd: int) -> Process:
    ready, their_ready = os.pipe()
    command = ["slirp4netns", "--configure", "--mtu=65520", "--disable-host-loopback"]
    # --enable-sandbox would need uid 0 inside; instead it runs as a user who owns nothing.
    command += ["--enable-seccomp", f"--exit-fd={alive_fd}", f"--ready-fd={their_ready}"]
    command += ["--netns-type=path", f"--userns-path=/proc/self/fd/{owner}"]
    command += [f"/proc/self/fd/{net}", "tap0"]
    closed = uid is not None and not TUN.stat().st_mode & stat.S_IWOTH
    script = WAIT + (OPEN_TUN if closed else "") + HANDOVER
    fds = [net, owner, alive_fd, their_ready]
    try:
        with Launch(
            script, [*as_user(uid), *command], log_fd=log_fd, fds=fds, private_mounts=closed
        ) as launch:
            os.close(their_ready)
            pid = launch.wait()
            carrier = pid and Process.of(pid)
            if not carrier:
                raise OSError("its launcher ended")
            launch.go()
            readable, _, _ = select.select([ready], [], [], SECONDS)
            if not readable or not os.read(ready, 1):
                raise OSError("slirp4netns did not become ready")
            return carrier
    finally:
        os.close(ready)


def _close_routes(net: int, owner: int, uid: int | None, private_networks: bool) -> None:
    closed = [LINK_LOCAL, *host_addresses(Path("/proc/net/fib_trie").read_text())]
    closed += () if private_networks else PRIVATE
    inside = ["nsenter", f"--user=/proc/self/fd/{owner}", f"--net=/proc/self/fd/{net}"]
    subprocess.run(
        [*as_user(uid), *inside, "--preserve-credentials", "ip", "-batch", "-"],
        input="".join(f"route replace unreachable {each}\n" for each in closed),
        pass_fds=[net, owner],
        timeout=SECONDS,
        capture_output=True,
        text=True,
        check=True,
    )


def host_addresses(fib_trie: str) -> list[str]:
    """Return the IPv4 addresses of this host, without its loopback, from /proc/net/fib_trie."""
    local = re.findall(r"\|-- ([0-9.]+)\n\s+/32 host LOCAL", fib_trie)
    found = {address for address in map(ipaddress.IPv4Address, local) if not address.is_loopback}
    return [str(address) for address in sorted(found)]

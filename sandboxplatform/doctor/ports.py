"""The server's own port, and the ports of this host that sandboxes are given."""

from __future__ import annotations

import errno
import http.client
import json
import random
import socket
from collections.abc import Iterator
from pathlib import Path

from django.db import DatabaseError

from deployers.errors import DeployerError
from sandboxes.models import PortLease
from sandboxplatform import config
from sandboxplatform.doctor.findings import Finding, fail, ok, warn
from sandboxplatform.doctor.subject import Subject

SAMPLE = 50
SECONDS = 3.0
NEARLY_ALL = 0.9
KERNEL = Path("/proc/sys/net/ipv4")


def look(subject: Subject) -> Iterator[Finding]:
    yield _own(subject)
    try:
        deployer = subject.deployer
        if deployer is None:
            yield ok("sandboxes' ports not looked at, without an engine")
        elif not deployer.needs_host_port:
            yield ok("sandboxes need none of this host")
        else:
            yield from _of_sandboxes(subject)
    except (DeployerError, DatabaseError) as error:
        yield ok(f"sandboxes' ports not looked at: {error}")


def _own(subject: Subject) -> Finding:
    host, port = subject.platform.HOST, subject.platform.PORT
    try:
        _bind(host, port)
    except OSError as error:
        return _why_not(subject, error)
    return ok(f"{host}:{port} is free")


def _bind(host: str, port: int) -> None:
    """Take the address and give it back, without listening there; raise OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


def _why_not(subject: Subject, error: OSError) -> Finding:
    host, port = subject.platform.HOST, subject.platform.PORT
    if error.errno == errno.EADDRINUSE:
        pid = subject.server_pid()
        if pid is None:
            fix = "End the program that listens there, or set PORT to another."
            return fail(f"{host}:{port} is taken by another program", fix)
        if _answers_as_ours(subject):
            return ok(f"{host}:{port} is held by our server (process {pid})")
        return fail(
            f"{host}:{port} is taken, and does not answer as our server (process {pid}) would",
            "If the server was started with --port, give the doctor the same PORT; else end what "
            "listens there, or restart the server.",
        )
    fix = "Set HOST to an address of this machine."
    if error.errno == errno.EACCES:
        fix = "Set PORT to 1024 or more, which any user may listen on."
    return fail(f"cannot listen on {host}:{port}: {error.strerror}", fix)


def _answers_as_ours(subject: Subject) -> bool:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(subject.platform.HOST, subject.platform.HOST)  # noqa: S104  # not bound here
    known = config.allowed_hosts(subject.platform)[0].removeprefix(".")
    connection = http.client.HTTPConnection(host, subject.platform.PORT, timeout=SECONDS)
    try:
        connection.request("GET", "/health", headers={"Host": host if known == "*" else known})
        return json.loads(connection.getresponse().read())["status"] == "healthy"
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        return False
    finally:
        connection.close()


def _of_sandboxes(subject: Subject) -> Iterator[Finding]:
    low, high = subject.platform.PORT_RANGE
    leased = set(
        PortLease.objects.filter(port__gte=low, port__lt=high).values_list("port", flat=True)
    )
    size, shown = high - low, f"PORT_RANGE [{low},{high}]"
    if len(leased) == size:
        yield fail(
            f"all {size} ports of {shown} are leased",
            "Set a wider PORT_RANGE, or release sandboxes.",
        )
        return
    if len(leased) > NEARLY_ALL * size:
        yield warn(
            f"{len(leased)} of the {size} ports of {shown} are leased",
            "Set a wider PORT_RANGE, or a MAX_SANDBOX_INSTANCES below its size.",
        )
    else:
        yield ok(f"{len(leased)} of the {size} ports of {shown} are leased")
    yield from _held_by_strangers(
        subject, [each for each in range(low, high) if each not in leased]
    )
    yield from _overlap(low, high)


def _held_by_strangers(subject: Subject, free: list[int]) -> Iterator[Finding]:
    host = subject.platform.SANDBOX_ACCESS_HOST or "127.0.0.1"
    sample = random.sample(free, min(SAMPLE, len(free)))
    held = 0
    for port in sample:
        try:
            _bind(host, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return  # not an address of this machine: its ports cannot be looked at from here
            held += 1
    fix = "Set PORT_RANGE to ports that no other program listens on."
    if held == len(sample):
        yield fail(f"none of {len(sample)} ports that were tried is free", fix)
    elif held > len(sample) / 2:
        yield warn(f"other programs hold {held} of {len(sample)} ports that were tried", fix)
    else:
        yield ok(f"{len(sample) - held} of {len(sample)} tried are free")


def _overlap(low: int, high: int) -> Iterator[Finding]:
    """Warn of ports that the kernel may at any moment give to an outgoing connection."""
    try:
        first, last = map(int, (KERNEL / "ip_local_port_range").read_text().split())
        reserved = _ports((KERNEL / "ip_local_reserved_ports").read_text())
    except (OSError, ValueError):
        return
    shared = set(range(max(low, first), min(high, last + 1))) - reserved
    if shared:
        yield warn(
            f"{len(shared)} of them are in the kernel's range for outgoing connections "
            f"({first}-{last})",
            f"Reserve them: `sysctl -w net.ipv4.ip_local_reserved_ports={low}-{high - 1}`; or set "
            f"PORT_RANGE outside of that range.",
        )


def _ports(text: str) -> set[int]:
    """Parse the kernel's list of ports and ranges, such as 8080,9000-9010."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found

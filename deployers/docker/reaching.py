"""How this machine reaches the sandboxes of an engine: by their address, or by a port."""

from __future__ import annotations

import functools
import socket
from pathlib import Path

from deployers.docker.engine import Engine
from deployers.docker.networks import Networks, is_own_address
from deployers.errors import Rejected


class Reach:
    """Decide once, on the first question, whether ports are published; that may call the engine."""

    def __init__(self, engine: Engine, networks: Networks, *, access_host: str) -> None:
        self._engine = engine
        self._networks = networks
        self._given = access_host

    @functools.cached_property
    def needs_host_port(self) -> bool:
        """Are ports published, because this machine is not the bridge's own?"""
        if self._given or self._engine.host:
            return True
        return not is_own_address(self._networks.get(internal=False).gateway)

    @property
    def host(self) -> str:
        """Where published ports are reached, as it stands in a URL."""
        host = self._given or self._engine.host or "127.0.0.1"
        return f"[{host}]" if ":" in host else host

    def check(self) -> str:
        """Say in words where ports are published, "" if none are; Rejected if that cannot work."""
        if not self.needs_host_port:
            return ""
        if not self._given and not self._engine.host and _in_container():
            raise Rejected(
                "This server runs in a container beside its sandboxes and cannot reach them by "
                "their own addresses: set the access host to an address of the engine's machine "
                "that this container reaches, e.g. the gateway of its network."
            )
        self.publish_at()
        return f"sandboxes published at {self.host}"

    def publish_at(self) -> str:
        """Return the address that ports are bound to, "" to publish none."""
        if not self.needs_host_port:
            return ""
        host = self.host.strip("[]")
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError as error:
            raise Rejected(f"The access host {host} has no address: {error.strerror}.") from None
        return min(found, key=lambda one: one[0] != socket.AF_INET)[4][0]


def _in_container() -> bool:
    return Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()

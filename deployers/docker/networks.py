"""
The bridge networks that sandboxes live in.

Two for each installation, made on demand: an open one, and an internal one without a way out.
On both, sandboxes cannot reach each other (enable_icc=false); this machine reaches all of them.
A Linux bridge holds at most 1023 of them.

Both ways out end at the engine's machine itself: what listens there on all addresses can be
reached from inside, and Docker has no setting against it. The bridges' names begin with sbx-
so that one rule of its firewall closes that, for all installations:

    iptables -I INPUT -i sbx-+ -m conntrack --ctstate NEW -j DROP
"""

from __future__ import annotations

import hashlib
import socket
import threading
from dataclasses import dataclass

import docker

from deployers.docker.engine import Engine
from deployers.errors import Rejected

INSTANCE_LABEL = "io.sandboxplatform.instance"
NAME_LABEL = "io.sandboxplatform.name"
GUEST_PORT_LABEL = "io.sandboxplatform.guest-port"


@dataclass(frozen=True, slots=True)
class BridgeNetwork:
    id: str
    gateway: str


class Networks:
    """Make, remember and remove the networks of one installation; they carry its label."""

    def __init__(self, engine: Engine, *, instance: str, prefix: str) -> None:
        self._engine = engine
        self._instance = instance
        self._names = {False: f"{prefix}-{instance}", True: f"{prefix}-{instance}-internal"}
        self._lock = threading.Lock()
        self._known: dict[bool, BridgeNetwork] = {}

    def get(self, *, internal: bool) -> BridgeNetwork:
        """Return the network, made if need be; one engine call or none when it is there."""
        with self._lock:
            if internal not in self._known:
                self._known[internal] = self._find(internal) or self._create(internal)
            return self._known[internal]

    def forget(self) -> None:
        """Look again: somebody removed a network."""
        with self._lock:
            self._known.clear()

    def remove(self) -> list[str]:
        """Remove those that hold no sandbox; return their names."""
        removed = []
        self.forget()
        with self._engine.call("remove our networks") as api:
            for found in api.networks(filters=self._label_filter()):
                try:
                    api.remove_network(found["Id"])
                except docker.errors.NotFound:
                    continue
                except docker.errors.APIError as error:
                    # 403 is the engine's answer for a network that is in use.
                    if error.status_code not in (403, 409):
                        raise
                else:
                    removed.append(found["Name"])
        return removed

    def _find(self, internal: bool) -> BridgeNetwork | None:
        name = self._names[internal]
        with self._engine.call(f"look for the network {name}") as api:
            found = [
                one for one in api.networks(filters=self._label_filter()) if one["Name"] == name
            ]
        if not found:
            return None
        pools = (found[0].get("IPAM") or {}).get("Config") or [{}]
        return BridgeNetwork(found[0]["Id"], pools[0].get("Gateway", ""))

    def _create(self, internal: bool) -> BridgeNetwork:
        name = self._names[internal]
        # An engine lets two processes make two networks of one name at the same moment, but
        # not two bridges.
        bridge = f"sbx-{hashlib.sha256(name.encode()).hexdigest()[:10]}"
        with self._engine.call(f"create the network {name}") as api:
            try:
                api.create_network(
                    name,
                    driver="bridge",
                    internal=internal,
                    check_duplicate=True,
                    labels={INSTANCE_LABEL: self._instance},
                    options={
                        "com.docker.network.bridge.name": bridge,
                        "com.docker.network.bridge.enable_icc": "false",
                    },
                )
            except docker.errors.APIError as error:
                if error.status_code != 409 and "bridge name" not in str(error.explanation):
                    raise
        network = self._find(internal)
        if network is None:
            raise Rejected(
                f"A Docker network called {name} or a bridge called {bridge} exists that is not of "
                f"this installation: remove it (docker network rm {name}) or choose another "
                "network prefix."
            )
        return network

    def _label_filter(self) -> dict[str, str]:
        return {"label": f"{INSTANCE_LABEL}={self._instance}"}


def is_own_address(address: str) -> bool:
    """Is this the address of one of this machine's own interfaces?"""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True

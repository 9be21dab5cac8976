"""The straight way to a guest, past the server: what the server's own part costs."""

from __future__ import annotations

import json
from dataclasses import dataclass

from sandboxes.models import Sandbox
from sandboxplatform.loadtest.connection import Address, CallFailed, Connection
from sandboxplatform.loadtest.results import OURS
from sandboxplatform.loadtest.server import Server, failed_tool

SECONDS = 30.0
OTHER_KEY = (
    "the guest refused the secret derived here; run this command on the server's machine, with "
    "its settings (SECRET_KEY or DATA_DIR)"
)


class NotPossible(Exception):
    """The guest cannot be reached from here; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Guest:
    """A sandbox's own server."""

    address: Address
    secret: str
    connection: Connection

    def tool(self, tool: str, **arguments: str) -> bytes:
        body = json.dumps(arguments).encode()
        return self.address.request("POST", f"/fastapi/tools/{tool}", self.secret, body)

    async def call(self, request: bytes) -> bytes:
        body = await self.connection.call(request, limit=SECONDS)
        if error := failed_tool(body):
            raise error
        return body


async def find(server: Server, info: dict[str, object]) -> Guest:
    """
    Return the guest of a get_info record; raise NotPossible.

    Ours hands its secret to no one: it is derived from the server's signing key. The
    reference's record holds it.
    """
    if server.side == OURS:
        secret = Sandbox(name=str(info["container_name"])).guest_secret
    else:
        secret = str(info["runtime_token"])
    try:
        address = Address.of(str(info["url"]))
    except ValueError as error:
        raise NotPossible(f"the sandbox tells no address: {error}") from error
    guest = Guest(address, secret, Connection(address))
    try:
        await guest.connection.call(
            address.request("GET", "/fastapi/healthz", secret), limit=SECONDS
        )
    except CallFailed as error:
        guest.connection.close()
        if error.kind in ("HTTP 401", "HTTP 403"):
            raise NotPossible(OTHER_KEY) from error
        raise NotPossible(f"{info['url']} does not answer from here ({error})") from error
    return guest

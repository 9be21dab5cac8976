"""One Docker engine: a time limit on every call, and its errors in our words."""

from __future__ import annotations

import functools
import logging
import os
import re
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import closing, contextmanager

import docker
import requests
import urllib3
from docker.utils import kwargs_from_env, version_lt

from deployers.errors import DeployerError, PortTaken, Rejected, Unavailable

logger = logging.getLogger("deployers.docker")

DEFAULT_ADDRESS = "unix:///var/run/docker.sock"
OLDEST_API = "1.41"
"""Docker 20.10, the first that lets an ordinary user of a container bind port 80."""

POOLED_CONNECTIONS = 32

_PORT = re.compile(
    r":(\d+)\b[^:]*: (?:bind: )?(?:port is already allocated|address already in use)"
)

# What an engine says, and what a person can do about it. The first match counts; the class is
# ours because the engine answers 500 to much that will never work and to much that soon will.
_KNOWN: tuple[tuple[str, type[DeployerError], str], ...] = (
    ("no space left on device", Unavailable, "Free disk space on the engine's machine."),
    ("could not find an available", Unavailable, "Remove unused networks: docker network prune."),
    ("all predefined address pools", Unavailable, "Remove unused networks: docker network prune."),
    ("no available IPv4 addresses", Unavailable, "The network is full: end some sandboxes."),
    ("exchange full", Unavailable, "A Linux bridge holds 1023 sandboxes: end some."),
    ("cannot assign requested address", Rejected, "Set the access host to an address of the engine's machine."),
    ("bind source path does not exist", Rejected, "The engine sees the files of its own machine: create the directory there."),
    ("nknown runtime specified", Rejected, "Install the runtime and name it in the engine's daemon.json."),
    ("unknown or invalid runtime name", Rejected, "Install the runtime and name it in the engine's daemon.json."),
    ("executable file not found", Rejected, "The image's command does not exist in it: build the image again."),
    ("manifest unknown", Rejected, ""),
    ("manifest for ", Rejected, ""),
    ("no matching manifest", Rejected, "The image is made for other processors only."),
    ("access denied", Rejected, ""),
    ("unauthorized", Rejected, ""),
    ("exec format error", Rejected, "The image is made for another processor: build or pull it for this one."),
)  # fmt: skip


class Engine:
    """
    Reach one Docker engine; base_url None means DOCKER_HOST, else the usual socket.

    Connections are made on first use and never shared with a forked process.
    """

    def __init__(self, base_url: str | None, *, call_timeout: float) -> None:
        settings = kwargs_from_env()
        self.address = base_url or settings.get("base_url") or DEFAULT_ADDRESS
        self.call_timeout = call_timeout
        self._tls = settings.get("tls", False)
        self._api_version: str | None = None
        self._lock = threading.Lock()
        self._clients: dict[tuple[int, float], docker.APIClient] = {}

    @functools.cached_property
    def host(self) -> str:
        """Name of the engine's machine, "" when it is reached by a socket of this one."""
        parts = urllib.parse.urlsplit(self.address)
        return "" if parts.scheme in ("unix", "http+unix", "npipe") else parts.hostname or ""

    @contextmanager
    def call(
        self, doing: str, *, timeout: float | None = None, hide: tuple[str, ...] = ()
    ) -> Iterator[docker.APIClient]:
        """
        Lend a client whose every read ends after timeout seconds; raise in our words.

        doing completes "Docker could not …"; hide lists secrets to keep out of the error.
        """
        seconds = timeout or self.call_timeout
        try:
            yield self._client(seconds)
        except (docker.errors.DockerException, requests.RequestException) as error:
            raise self._translate(error, doing, seconds, hide) from None
        except (urllib3.exceptions.HTTPError, ConnectionError, TimeoutError) as error:
            raise self._translate(error, doing, seconds, hide) from error

    def check(self) -> str:
        """Return "Docker VERSION at ADDRESS"; raise if it is no engine that can be used."""
        with self.call("say its version") as api:
            version = api.version()
        if version_lt(version["ApiVersion"], OLDEST_API):
            raise Rejected(
                f"Docker {version['Version']} at {self.address} is too old: install 20.10 or newer."
            )
        if version.get("Os") != "linux":
            raise Rejected(
                f"Docker at {self.address} runs {version.get('Os')} containers: "
                "switch it to Linux containers."
            )
        return f"Docker {version['Version'].partition('+')[0]} at {self.address}"

    def close(self) -> None:
        with self._lock:
            clients, self._clients = self._clients, {}
        for (process, _), client in clients.items():
            if process == os.getpid():
                client.close()

    def _client(self, seconds: float) -> docker.APIClient:
        key = os.getpid(), seconds
        client = self._clients.get(key)
        if client is not None:
            return client
        if self._api_version is None:
            # Not the client's own negotiation, which leaves the connection open when it fails;
            # and not under the lock, where one call that hangs would hold up all others.
            with closing(self._connect(seconds, OLDEST_API)) as api:
                self._api_version = api.version(api_version=False)["ApiVersion"]
        with self._lock:
            if key not in self._clients:
                self._clients[key] = self._connect(seconds, self._api_version)
            return self._clients[key]

    def _connect(self, seconds: float, version: str) -> docker.APIClient:
        """Make a client; this calls nobody."""
        return docker.APIClient(
            base_url=self.address,
            tls=self._tls,
            timeout=seconds,
            version=version,
            max_pool_size=POOLED_CONNECTIONS,
        )

    def _translate(
        self, error: Exception, doing: str, seconds: float, hide: tuple[str, ...]
    ) -> DeployerError:
        if isinstance(error, docker.errors.APIError):
            return refusal(str(error.explanation or error), doing, error.status_code, hide)
        text = str(error)
        if "Permission denied" in text:
            return Rejected(
                f"This process may not use the Docker engine at {self.address}: add its user to "
                "the group docker (usermod -aG docker USER, then log in again) or run it as root."
            )
        if "timed out" in text.lower() or isinstance(error, requests.Timeout):
            return Unavailable(
                f"Docker engine did not answer within {seconds:g} s: it could not {doing} in time."
            )
        return Unavailable(
            f"No Docker engine can be reached at {self.address}: start it (systemctl start docker) "
            f"or set DOCKER_HOST. It could not {doing}: {text}"
        )


def refusal(
    answer: str, doing: str, status: int | None, hide: tuple[str, ...] = ()
) -> DeployerError:
    """Judge an engine's answer: the class says whether to try again, the text what to change."""
    for secret in hide:
        answer = answer.replace(secret, "***")
    sentence = f"Docker could not {doing}: {answer.strip().rstrip('.')}."
    if taken := _PORT.search(answer):
        port = int(taken[1])
        return PortTaken(
            f"{sentence} Port {port} is in use: free it or give another port range.", port=port
        )
    for words, kind, advice in _KNOWN:
        if words in answer:
            return kind(f"{sentence} {advice}".strip())
    return (Unavailable if status is None or status >= 500 else Rejected)(sentence)

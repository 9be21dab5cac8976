"""The few calls of Docker's Engine API that measuring needs, over its Unix socket."""

from __future__ import annotations

import http.client
import json
import os
from urllib.parse import quote

from sandboxes.readiness import connect

DEFAULT_HOST = "unix:///var/run/docker.sock"
API = "/v1.41"
SECONDS = 30.0


class EngineError(Exception):
    """The engine cannot be asked, or refused; the sentence says why."""


class DockerEngine:
    """The engine of this machine. One call at a time."""

    def __init__(self) -> None:
        host = os.environ.get("DOCKER_HOST") or DEFAULT_HOST
        if not host.startswith("unix://"):
            raise EngineError(f"DOCKER_HOST {host!r} is not a Unix socket of this machine")
        self._connection = connect(f"http+unix://{quote(host[7:], safe='')}", SECONDS)

    def call(self, method: str, path: str, body: object = None, *, query: str = "") -> object:
        """Return the decoded answer, None where it is empty; raise EngineError for a refusal."""
        sent = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json"} if sent else {}
        try:
            self._connection.request(method, f"{API}{path}{query}", sent, headers)
            answer = self._connection.getresponse()
            said = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise EngineError(f"the Docker engine does not answer ({error})") from error
        if answer.status >= 400:
            raise EngineError(f"the Docker engine refused {path}: {said.decode()[:200].strip()}")
        return json.loads(said) if said else None

    def has(self, container: str) -> bool:
        """Does it know this container?"""
        try:
            self.call("GET", f"/containers/{quote(container, safe='')}/json")
        except EngineError:
            return False
        return True

    def labels(self, container: str) -> dict[str, str]:
        return self.call("GET", f"/containers/{container}/json")["Config"]["Labels"] or {}

    def names(self) -> set[str]:
        """Return the names of all containers, ended ones too."""
        found = self.call("GET", "/containers/json", query="?all=1")
        return {name.lstrip("/") for each in found for name in each["Names"] or ()}

    def paused(self, label: str) -> list[str]:
        """Return the ids of the paused containers that carry a label NAME=VALUE."""
        filters = quote(json.dumps({"label": [label], "status": ["paused"]}))
        found = self.call("GET", "/containers/json", query=f"?filters={filters}")
        return [each["Id"] for each in found]

    def memory(self, container: str) -> float:
        """Return what a container holds in MB, without file cache that can be dropped."""
        found = self.call(
            "GET", f"/containers/{container}/stats", query="?stream=false&one-shot=true"
        )["memory_stats"]
        # Control groups of version 1, and 2: the same that `docker stats` takes off.
        cache = found["stats"].get("total_inactive_file", found["stats"].get("inactive_file", 0))
        return (found["usage"] - cache) / 1e6

"""The calls to one engine about containers: one method, one thing done."""

from __future__ import annotations

import docker

from deployers.docker.engine import Engine
from deployers.docker.networks import INSTANCE_LABEL
from deployers.docker.observing import RUN_ONCE, STOPPED_ON_PURPOSE, is_marked_stopped
from deployers.errors import Rejected, Unavailable

START_SECONDS = 60
STOP_GRACE_SECONDS = 2

Found = dict[str, object]


class Gone(Unavailable):
    """Somebody removed the container between two calls."""


class NetworkLost(Gone):
    """Somebody removed the network between two calls."""


class Containers:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, name: str) -> Found | None:
        with self._engine.call(f"look at {name}") as api:
            try:
                return api.inspect_container(name)
            except docker.errors.NotFound:
                return None

    def list(self, instance: str) -> list[Found]:
        with self._engine.call("list its containers") as api:
            return api.containers(all=True, filters={"label": f"{INSTANCE_LABEL}={instance}"})

    def create(self, name: str, body: Found, hide: tuple[str, ...]) -> str | None:
        """Return the new container's id, None if the name is taken."""
        doing = f"create {name} from {body['Image']}"
        with self._engine.call(doing, timeout=START_SECONDS, hide=hide) as api:
            try:
                return api.create_container_from_config(body, name)["Id"]
            except docker.errors.APIError as error:
                if error.status_code == 409 and "already in use" in str(error.explanation):
                    return None
                raise

    def run(self, name: str, container_id: str, hide: tuple[str, ...]) -> Found:
        """Start what was created or stopped; what runs already is a success."""
        with self._engine.call(f"start {name}", timeout=START_SECONDS, hide=hide) as api:
            try:
                api.start(container_id)
                found = api.inspect_container(container_id)
                if is_marked_stopped(found):
                    # After the start, so that a crash between the two does not turn a stopped
                    # sandbox into a broken one. The next start() repairs what is left undone.
                    api.update_container(container_id, restart_policy={"Name": RUN_ONCE})
            except docker.errors.NotFound as error:
                if "network" in str(error.explanation):
                    raise NetworkLost(f"The network of {name} was removed.") from None
                raise Gone(f"Sandbox {name} was removed while it was started.") from None
        return found

    def stop(self, name: str, container_id: str) -> None:
        with self._engine.call(f"stop {name}") as api:
            try:
                api.update_container(container_id, restart_policy={"Name": STOPPED_ON_PURPOSE})
                api.stop(container_id, timeout=STOP_GRACE_SECONDS)
            except docker.errors.NotFound:
                raise Rejected(f"Sandbox {name} was removed while it was stopped.") from None

    def pause(self, name: str, container_id: str) -> None:
        with self._engine.call(f"pause {name}") as api:
            try:
                api.pause(container_id)
            except docker.errors.NotFound:
                raise Gone(f"Sandbox {name} was removed while it was paused.") from None
            except docker.errors.APIError as error:
                if "is already paused" not in str(error.explanation):
                    raise

    def unpause(self, name: str, container_id: str) -> None:
        with self._engine.call(f"unpause {name}") as api:
            try:
                api.unpause(container_id)
            except docker.errors.NotFound:
                raise Gone(f"Sandbox {name} was removed while it was unpaused.") from None
            except docker.errors.APIError as error:
                if "is not paused" not in str(error.explanation):
                    raise

    def remove(self, name: str, container_id: str) -> None:
        """Kill and remove it with its anonymous volumes; return when it is gone."""
        with self._engine.call(f"remove {name}", timeout=START_SECONDS) as api:
            try:
                api.remove_container(container_id, v=True, force=True)
            except docker.errors.NotFound:
                return
            except docker.errors.APIError as error:
                if error.status_code != 409 or "in progress" not in str(error.explanation):
                    raise
                try:
                    api.wait(container_id, timeout=START_SECONDS, condition="removed")
                except docker.errors.NotFound:
                    return

    def logs(self, name: str, container_id: str, lines: int) -> str:
        with self._engine.call(f"read the log of {name}") as api:
            try:
                return api.logs(container_id, tail=lines).decode(errors="replace")
            except docker.errors.NotFound:
                return ""

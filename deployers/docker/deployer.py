"""
The calls that make, watch and remove a sandbox as a Docker container.

The container's name is the sandbox's; the labels io.sandboxplatform.instance and .name say that
it is ours. Nothing without them is ever shown, started or removed.
"""

from __future__ import annotations

import functools
import logging
import socket
import time
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

from deployers.base import (
    Deployer,
    Isolation,
    Network,
    Observation,
    Phase,
    SandboxSpec,
    SecurityLevel,
)
from deployers.docker import owner
from deployers.docker.body import container_body, network_of
from deployers.docker.build import build
from deployers.docker.containers import START_SECONDS, Containers, Gone, NetworkLost
from deployers.docker.engine import Engine
from deployers.docker.images import Image, Images
from deployers.docker.networks import Networks, is_own_address
from deployers.docker.observing import is_marked_stopped, is_ours, observe, observe_listed
from deployers.docker.runtime_config import parse_runtime_config
from deployers.errors import DeployerError, Rejected, Unavailable, UnsupportedSpec

logger = logging.getLogger("deployers.docker")

SECRET_LENGTH = 8

_warned_images: set[str] = set()


class DockerDeployer(Deployer):
    """
    Run sandboxes as containers of one engine (base_url, else DOCKER_HOST, else the socket).

    There are two ways to reach them. With an engine on this machine and no access_host, by
    their address on our own bridge network, and nothing is published. Otherwise by a published
    port (needs_host_port) at access_host, which must lead to the engine's machine and is also
    the only address the port is bound to; its default is the host in the engine's own address.
    Network.NONE is possible the first way only: an engine does not publish ports on a network
    without a way out.

    Which way is decided on the first question for needs_host_port, which may call the engine.
    """

    isolation = Isolation.CONTAINER
    supports_limits = True
    supports_images = True
    supports_logs = True
    supports_stop = True
    keeps_files_when_stopped = True
    """Except what a sandbox of security level high wrote to /tmp, which is in memory."""

    def __init__(
        self,
        *,
        instance: str,
        base_url: str | None = None,
        access_host: str = "",
        network_prefix: str = "sandboxplatform",
        call_timeout: float = 30,
        runtime: str = "",
    ) -> None:
        super().__init__(instance=instance)
        self._engine = Engine(base_url, call_timeout=call_timeout)
        self._containers = Containers(self._engine)
        self._images = Images(self._engine)
        self._networks = Networks(self._engine, instance=instance, prefix=network_prefix)
        self._runtime = runtime
        self._given_access_host = access_host

    @functools.cached_property
    def needs_host_port(self) -> bool:
        """Are ports published, because this machine is not the bridge's own?"""
        if self._given_access_host or self._engine.host:
            return True
        return not is_own_address(self._networks.get(internal=False).gateway)

    @property
    def supports_mounts(self) -> bool:
        """An engine mounts directories of its own machine; is that this one?"""
        return self._engine.host in ("", "localhost", "127.0.0.1", "::1")

    @property
    def access_host(self) -> str:
        host = self._given_access_host or self._engine.host or "127.0.0.1"
        return f"[{host}]" if ":" in host else host

    def check(self) -> str:
        line = self._engine.check()
        if not self.needs_host_port:
            return line
        if not self._given_access_host and not self._engine.host and _in_container():
            raise Rejected(
                "This server runs in a container beside its sandboxes and cannot reach them by "
                "their own addresses: set the access host to an address of the engine's machine "
                "that this container reaches, e.g. the gateway of its network."
            )
        self._publish_at()
        return f"{line}, sandboxes published at {self.access_host}"

    def validate(self, spec: SandboxSpec) -> None:
        super().validate(spec)
        parse_runtime_config(spec.runtime_config, spec.security_level)
        if self.needs_host_port and network_of(spec) is Network.NONE:
            raise UnsupportedSpec(
                "A sandbox without network cannot be reached by a published port: run this server "
                "on the engine's machine with the access host unset, or give the sandbox type "
                "the network outbound."
            )
        for limit in ("cpus", "memory_mb", "processes", "file_size_mb"):
            value = getattr(spec.limits, limit)
            if value is not None and value <= 0:
                raise UnsupportedSpec(f"The limit {limit} must be more than 0, not {value}.")

    def start(self, spec: SandboxSpec) -> Observation:
        self.validate(spec)
        hide = tuple(value for value in spec.env.values() if len(value) >= SECRET_LENGTH)
        deadline = time.monotonic() + START_SECONDS
        pause = 0.005
        # What exists needs no image any more, so a missing one is pulled only after a look.
        image = self._images.find(spec.image)
        if image is None:
            if seen := self._take_up(spec, hide):
                return seen
            image = self._images.get(spec.image)
        while True:
            if seen := self._start_new(spec, image, hide) or self._take_up(spec, hide):
                return seen
            # The name is still held by one that is being created or removed by someone else.
            if time.monotonic() > deadline:
                raise Unavailable(f"Docker keeps the name {spec.name} occupied: try again later.")
            time.sleep(pause)
            pause = min(pause * 2, 0.2)

    def inspect(self, name: str) -> Observation:
        found = self._containers.find(name)
        if found is None or not is_ours(found, self.instance, name):
            return Observation(name=name, phase=Phase.ABSENT)
        return self._observe(found)

    def remove(self, name: str) -> None:
        found = self._containers.find(name)
        if found is not None and is_ours(found, self.instance, name):
            self._containers.remove(name, found["Id"])

    def inspect_all(self) -> Iterator[Observation]:
        for found in self._containers.list(self.instance):
            seen = observe_listed(found, access_host=self.access_host)
            if seen is None:
                seen = self.inspect(found["Names"][0].removeprefix("/"))
            if seen.phase is not Phase.ABSENT:
                yield seen

    def stop(self, name: str) -> None:
        seen = self.inspect(name)
        if seen.phase is Phase.STOPPED:
            return
        if seen.phase is not Phase.READY:
            raise Rejected(
                f"Sandbox {name} does not run: it is {seen.phase}. {seen.detail}".strip()
            )
        self._containers.stop(name, seen.container_id)

    def logs(self, name: str, *, lines: int = 200) -> str:
        seen = self.inspect(name)
        if seen.phase is Phase.ABSENT:
            return ""
        return self._containers.logs(name, seen.container_id, lines)

    def find_image(self, reference: str) -> str | None:
        found = self._images.find(reference)
        return found.id if found else None

    def image_size(self, reference: str) -> int | None:
        found = self._images.find(reference)
        return found.size_bytes if found else None

    def can_pull(self, reference: str) -> bool:
        return self._images.can_pull(reference)

    def pull(self, reference: str) -> None:
        self._images.pull(reference)

    def build(
        self,
        context: Path,
        *,
        dockerfile: Path | None = None,
        platform: str | None = None,
        no_cache: bool = False,
        network: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Generator[str, None, str]:
        return build(
            self._engine,
            context,
            dockerfile=dockerfile,
            platform=platform,
            no_cache=no_cache,
            network=network,
            labels=labels,
        )

    def tag_image(self, image_id: str, reference: str) -> None:
        self._images.tag(image_id, reference)

    def remove_image(self, image_id: str, *, only_untagged: bool = False) -> None:
        self._images.remove(image_id, only_untagged=only_untagged)

    def remove_shared(self) -> None:
        """Remove our networks that hold no sandbox; start() makes them anew."""
        self._networks.remove()

    def close(self) -> None:
        self._engine.close()

    def _start_new(
        self, spec: SandboxSpec, image: Image, hide: tuple[str, ...]
    ) -> Observation | None:
        """Create and run it; None if the name is taken or our network was removed meanwhile."""
        body = self._body(spec, image)
        container_id = self._containers.create(spec.name, body, hide)
        if container_id is None:
            return None
        try:
            return self._observe(self._containers.run(spec.name, container_id, hide))
        except BaseException as error:
            self._discard(spec.name, container_id)
            if isinstance(error, NetworkLost):
                self._networks.forget()
                return None
            raise

    def _take_up(self, spec: SandboxSpec, hide: tuple[str, ...]) -> Observation | None:
        """Go on with what has the name already; None if there is nothing (any more)."""
        found = self._containers.find(spec.name)
        if found is None:
            return None
        if not is_ours(found, self.instance, spec.name):
            raise Rejected(
                f"A Docker container called {spec.name} exists that is not of this installation: "
                f"remove it (docker rm {spec.name}) or choose another name prefix."
            )
        seen = self._observe(found)
        if seen.phase is Phase.BROKEN:
            self._containers.remove(spec.name, found["Id"])
            return None
        if seen.phase is Phase.READY and not is_marked_stopped(found):
            return seen
        try:
            return self._observe(self._containers.run(spec.name, found["Id"], hide))
        except NetworkLost:
            self._networks.forget()
            self._containers.remove(spec.name, found["Id"])
            return None
        except Gone:
            return None

    def _body(self, spec: SandboxSpec, image: Image) -> dict[str, object]:
        if image.is_root:
            self._judge_root_image(spec, image)
        user = None
        if spec.workspace is not None and not image.is_root:
            user = owner.take_over(spec.workspace, image.user)
        network = self._networks.get(internal=network_of(spec) is Network.NONE)
        return container_body(
            spec,
            instance=self.instance,
            network_id=network.id,
            user=user,
            is_root=image.is_root,
            publish_at=self._publish_at() if self.needs_host_port else "",
            runtime=self._runtime,
        )

    def _judge_root_image(self, spec: SandboxSpec, image: Image) -> None:
        advice = "Build one that does not: python manage.py buildimage TYPE."
        if spec.security_level is SecurityLevel.HIGH:
            raise Rejected(
                f"The image {spec.image} starts as root, which security level high refuses. {advice}"
            )
        if spec.security_level is SecurityLevel.MEDIUM and image.id not in _warned_images:
            _warned_images.add(image.id)
            logger.warning("The image %s starts as root inside. %s", spec.image, advice)

    def _publish_at(self) -> str:
        host = self.access_host.strip("[]")
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError as error:
            raise Rejected(f"The access host {host} has no address: {error.strerror}.") from None
        return min(found, key=lambda one: one[0] != socket.AF_INET)[4][0]

    def _observe(self, found: Mapping[str, object]) -> Observation:
        return observe(found, access_host=self.access_host)

    def _discard(self, name: str, container_id: str) -> None:
        try:
            self._containers.remove(name, container_id)
        except DeployerError as error:
            logger.warning("After a failed start, %s is left for the reaper: %s", name, error)


def _in_container() -> bool:
    return Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()

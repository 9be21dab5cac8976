"""
The calls that make, watch and remove a sandbox as a Docker container.

The container's name is the sandbox's; the labels io.sandboxplatform.instance and .name say that
it is ours. Nothing without them is ever shown, started or removed.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

from deployers.base import Deployer, Isolation
from deployers.docker.body import network_of
from deployers.docker.build import build
from deployers.docker.containers import Containers
from deployers.docker.engine import Engine
from deployers.docker.images import Images
from deployers.docker.networks import Networks
from deployers.docker.observing import is_ours, observe, observe_listed
from deployers.docker.reaching import Reach
from deployers.docker.runtime_config import parse_runtime_config
from deployers.docker.starting import Starter
from deployers.docker.watching import Watch
from deployers.errors import Rejected, UnsupportedSpec
from deployers.observation import Observation, Phase
from deployers.specs import Network, SandboxSpec


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
    supports_pause = True
    supports_watch = True
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
        self._watch = Watch(self._engine, instance=instance)
        self._reach = Reach(self._engine, self._networks, access_host=access_host)
        self._starter = Starter(
            instance=instance,
            containers=self._containers,
            images=self._images,
            networks=self._networks,
            reach=self._reach,
            runtime=runtime,
        )

    @property
    def needs_host_port(self) -> bool:
        """Are ports published, because this machine is not the bridge's own?"""
        return self._reach.needs_host_port

    @property
    def supports_mounts(self) -> bool:
        """An engine mounts directories of its own machine; is that this one?"""
        return self._engine.host in ("", "localhost", "127.0.0.1", "::1")

    @property
    def access_host(self) -> str:
        return self._reach.host

    def check(self) -> str:
        found = self._engine.check(), self._reach.check()
        return ", ".join(filter(None, found))

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
        return self._starter.start(spec)

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
        if seen.phase is not Phase.STOPPED:
            self._need_processes(seen)
            self._containers.stop(name, seen.container_id)

    def pause(self, name: str) -> None:
        seen = self.inspect(name)
        self._need_processes(seen)
        if seen.phase is not Phase.PAUSED:
            self._containers.pause(name, seen.container_id)

    def unpause(self, name: str) -> None:
        seen = self.inspect(name)
        self._need_processes(seen)
        if seen.phase is Phase.PAUSED:
            self._containers.unpause(name, seen.container_id)

    def watch(self, stop: threading.Event) -> Iterator[str]:
        return self._watch.names(stop)

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
        """Remove our networks if there is no sandbox; start() makes them anew."""
        # The engine would take a stopped sandbox's network away without a word.
        if not self._containers.list(self.instance):
            self._networks.remove()

    def close(self) -> None:
        self._engine.close()

    @staticmethod
    def _need_processes(seen: Observation) -> None:
        if seen.phase not in (Phase.READY, Phase.PAUSED):
            raise Rejected(
                f"Sandbox {seen.name} does not run: it is {seen.phase}. {seen.detail}".strip()
            )

    def _observe(self, found: Mapping[str, object]) -> Observation:
        return observe(found, access_host=self.access_host)

"""How a sandbox is brought up, whatever is there of it already."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from deployers.docker import owner
from deployers.docker.body import container_body, network_of
from deployers.docker.containers import START_SECONDS, Containers, Gone, NetworkLost
from deployers.docker.images import Image, Images
from deployers.docker.networks import Networks
from deployers.docker.observing import is_marked_stopped, is_ours, observe
from deployers.docker.reaching import Reach
from deployers.errors import DeployerError, Rejected, Unavailable
from deployers.observation import Laps, Observation, Phase
from deployers.specs import Network, SandboxSpec, SecurityLevel

logger = logging.getLogger("deployers.docker")

SECRET_LENGTH = 8

_warned_images: set[str] = set()


class Starter:
    """Start sandboxes of one installation; runtime names an engine runtime, "" for its default."""

    def __init__(
        self,
        *,
        instance: str,
        containers: Containers,
        images: Images,
        networks: Networks,
        reach: Reach,
        runtime: str,
    ) -> None:
        self._instance = instance
        self._containers = containers
        self._images = images
        self._networks = networks
        self._reach = reach
        self._runtime = runtime

    def start(self, spec: SandboxSpec) -> Observation:
        """Keep the contract of Deployer.start() for a spec that was found valid."""
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

    def _start_new(
        self, spec: SandboxSpec, image: Image, hide: tuple[str, ...]
    ) -> Observation | None:
        """Create and run it; None if the name is taken or our network was removed meanwhile."""
        laps = Laps()
        network = self._networks.get(internal=network_of(spec) is Network.NONE)
        laps.note("network")
        body = self._body(spec, image, network.id)
        container_id = self._containers.create(spec.name, body, hide)
        laps.note("created")
        if container_id is None:
            return None
        try:
            seen = self._observe(self._containers.run(spec.name, container_id, hide))
            laps.note("started")
            return laps.added_to(seen)
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
        if not is_ours(found, self._instance, spec.name):
            raise Rejected(
                f"A Docker container called {spec.name} exists that is not of this installation: "
                f"remove it (docker rm {spec.name}) or choose another name prefix."
            )
        seen = self._observe(found)
        if seen.phase is Phase.BROKEN:
            self._containers.remove(spec.name, found["Id"])
            return None
        if seen.phase is Phase.PAUSED:
            self._containers.unpause(spec.name, found["Id"])
            return self._take_up(spec, hide)
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

    def _body(self, spec: SandboxSpec, image: Image, network_id: str) -> dict[str, object]:
        if image.is_root:
            self._judge_root_image(spec, image)
        user = None
        if spec.workspace is not None and not image.is_root:
            user = owner.take_over(spec.workspace, image.user)
        return container_body(
            spec,
            instance=self._instance,
            network_id=network_id,
            user=user,
            is_root=image.is_root,
            publish_at=self._reach.publish_at(),
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

    def _observe(self, found: Mapping[str, object]) -> Observation:
        return observe(found, access_host=self._reach.host)

    def _discard(self, name: str, container_id: str) -> None:
        try:
            self._containers.remove(name, container_id)
        except DeployerError as error:
            logger.warning("After a failed start, %s is left for the reaper: %s", name, error)

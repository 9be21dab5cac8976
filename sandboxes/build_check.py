"""The sandbox in which a new image proves itself, and what is left of one whose builder was killed."""

from __future__ import annotations

import logging
import secrets
import socket
import time
from collections.abc import Iterable

from deployers import make_deployer
from deployers.base import Deployer
from deployers.errors import DeployerError
from deployers.specs import Limits, SandboxSpec
from sandboxes.models import ImageBuild, Installation
from sandboxes.readiness import wait_until_ready

logger = logging.getLogger(__name__)

CHECK_SECONDS = 60
CHECK_NAME = "image-check-"


def deployer_for(type_name: str) -> Deployer:
    """
    Return a Docker deployer with an id of its own for this installation and type.

    Apart from the server's sandboxes, so that what it starts is nobody's orphan.
    """
    return make_deployer("docker", instance=f"build-{type_name}-{Installation.current_id()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def check(deployer: Deployer, image_id: str) -> None:
    """
    Start a sandbox from the image as a server would, and wait for its guest.

    Raise NotReady or DeployerError.
    """
    secret = secrets.token_hex(16)
    name = f"{CHECK_NAME}{secrets.token_hex(8)}"
    spec = SandboxSpec(
        name=name,
        image=image_id,
        host_port=_free_port() if deployer.needs_host_port else None,
        env={"SECRET_TOKEN": secret, "NGINX_TIMEOUT": "60"},
        limits=Limits(memory_mb=1024),
    )
    try:
        url = deployer.start(spec).url
        deadline = time.monotonic() + CHECK_SECONDS
        wait_until_ready(deployer, name, url, secret, deadline=deadline)
    finally:
        deployer.remove(name)


def left_over(deployer: Deployer) -> list[str]:
    """Return the names of what a killed builder of the type left."""
    return [seen.name for seen in deployer.inspect_all()]


def remove(deployer: Deployer, names: Iterable[str]) -> None:
    for name in names:
        deployer.remove(name)


def tidy(deployer: Deployer) -> None:
    """Remove the networks of a build that has ended, and let go of the engine."""
    try:
        deployer.remove_shared()
    except DeployerError as error:
        logger.warning("Not everything could be removed: %s", error)
    deployer.close()


def clear_up(build: ImageBuild) -> None:
    """Remove the sandbox and networks of a build whose builder died; its row is still open."""
    deployer = deployer_for(build.sandbox_type.name)
    try:
        left = left_over(deployer)
        # Asked after the look: while this row is open, nothing that was seen is a newer build's.
        if ImageBuild.objects.abandoned().filter(pk=build.pk).exists():
            remove(deployer, left)
    finally:
        tidy(deployer)

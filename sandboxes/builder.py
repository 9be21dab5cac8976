"""Build a type's image: build, start the result, check its health, and only then move the tag."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from deployers import make_deployer
from deployers.base import Deployer, Limits, SandboxSpec
from deployers.errors import DeployerError
from sandboxes import registry
from sandboxes.readiness import NotReady, wait_until_ready

logger = logging.getLogger(__name__)

CONTEXT = Path(__file__).resolve().parent
"""What a Dockerfile may copy from: the images' folders and the guest."""

CHECK_SECONDS = 60
CHECK_NAME = "image-check-"


class BuildFailed(Exception):
    """The image was not tagged; the sentence names the stage and ends with what was said last."""


def dockerfile_of(type_name: str) -> Path:
    """Return the Dockerfile of a built-in type; raise BuildFailed where there is none."""
    file = CONTEXT / "images" / type_name / "Dockerfile"
    if not file.is_file():
        known = ", ".join(
            sorted(folder.parent.name for folder in CONTEXT.glob("images/*/Dockerfile"))
        )
        raise BuildFailed(f"There is no Dockerfile for {type_name!r}; there is one for {known}.")
    return file


def _deployer(type_name: str) -> Deployer:
    """
    Return a Docker deployer with an id of its own for this machine, user and type.

    A server's reaper does not see what it starts, and the next build of the type finds and
    removes what a killed one left.
    """
    owner = f"build-{type_name}-{uuid.getnode():x}-{os.getuid()}"
    return make_deployer("docker", instance=owner)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _check(deployer: Deployer, image_id: str) -> None:
    """Start a sandbox from the image as a server would, and wait for its guest."""
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


def _tidy(deployer: Deployer) -> None:
    try:
        deployer.remove_shared()
    except DeployerError as error:
        logger.warning("Not everything could be removed: %s", error)
    deployer.close()


def build(type_name: str) -> Iterator[str]:
    """
    Build the image of a type and move its tag to it, yielding what happens line by line.

    Raise BuildFailed with the stage and the reason; the tag then stays where it was.
    """
    reference = registry.image_of(type_name, "")
    dockerfile = dockerfile_of(type_name)
    deployer = _deployer(type_name)
    try:
        yield f"Building {reference} with {deployer.check()}"
        for left in list(deployer.inspect_all()):
            deployer.remove(left.name)
        try:
            image_id = yield from deployer.build(CONTEXT, dockerfile=dockerfile)
        except DeployerError as error:
            raise BuildFailed(f"Building {reference} failed: {error}") from error
        yield f"Built {image_id}; checking that a sandbox starts from it"
        old = deployer.find_image(reference)
        try:
            _check(deployer, image_id)
        except (NotReady, DeployerError) as error:
            if image_id != old:
                deployer.remove_image(image_id)
            kept = f"{reference} still names {old}" if old else f"{reference} was not made"
            raise BuildFailed(f"The check of the new image failed, {kept}: {error}") from error
        deployer.tag_image(image_id, reference)
        yield f"Tagged {reference}"
    except DeployerError as error:
        raise BuildFailed(str(error)) from error
    finally:
        _tidy(deployer)

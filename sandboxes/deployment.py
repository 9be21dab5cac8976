"""Which deployer this installation uses, chosen once per process."""

from __future__ import annotations

import functools
import logging

from django.conf import settings

from deployers import make_deployer
from deployers.base import Deployer
from deployers.errors import DeployerError, Unavailable
from sandboxes import registry
from sandboxes.models import Installation, Sandbox

logger = logging.getLogger(__name__)


def make(name: str) -> Deployer:
    """Build the deployer called name for this installation."""
    options = settings.DEPLOYER_OPTIONS[name]
    return make_deployer(name, instance=Installation.current_id(), **options)


@functools.cache
def _shared(name: str) -> Deployer:
    return make(name)


def current_name() -> str:
    """Return the deployer's name as in CONTAINER_DEPLOYMENT, choosing where it is unset."""
    if settings.PLATFORM.CONTAINER_DEPLOYMENT is None:
        settings.PLATFORM.CONTAINER_DEPLOYMENT, _ = choose()
    return settings.PLATFORM.CONTAINER_DEPLOYMENT


def current() -> Deployer:
    """Return this process's deployer; it is safe to share between threads."""
    return _shared(current_name())


def of(sandbox: Sandbox) -> Deployer:
    """
    Return the deployer that this sandbox was made with, which the settings may name no more.

    Raise Unavailable where this server does not know it.
    """
    if sandbox.deployer not in settings.DEPLOYER_OPTIONS:
        raise Unavailable(f"This server has no deployer called {sandbox.deployer!r}.")
    return _shared(sandbox.deployer)


def forget() -> None:
    """Drop the deployer, so that a forked process opens connections of its own."""
    _shared.cache_clear()


def choose() -> tuple[str, str]:
    """
    Return a deployer's name and, in a sentence, why it is the one.

    Raise DeployerError with what to install or change when the one that CONTAINER_DEPLOYMENT
    names, or none of docker and local, can serve here.
    """
    wanted = settings.PLATFORM.CONTAINER_DEPLOYMENT
    if wanted is not None:
        found = make(wanted).check()
        return wanted, f"CONTAINER_DEPLOYMENT names it ({found})"
    chosen, reason = _try_docker()
    if chosen:
        return "docker", reason
    try:
        found = make("local").check()
    except DeployerError as error:
        sentence = f"No sandbox can be started here. Docker: {reason} Local: {error}"
        raise type(error)(sentence) from error
    return "local", f"{found}; Docker was not chosen: {reason}"


def _try_docker() -> tuple[bool, str]:
    """Return whether Docker can serve the default type, and in words why or why not."""
    image = registry.image_of(settings.PLATFORM.DEFAULT_SANDBOX_TYPE[0], "")
    docker = make("docker")
    try:
        found = docker.check()
        if docker.find_image(image):
            return True, f"{found} has the image {image}"
        if docker.can_pull(image):
            return True, f"{found} can pull the image {image}"
        # Looking made what sandboxes there would share.
        docker.remove_shared()
        return False, f"{found} has no image {image} and cannot pull it"
    except DeployerError as error:
        return False, str(error)
    finally:
        docker.close()

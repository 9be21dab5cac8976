"""Images that must be pulled first: fetched once per process, waited for no longer than allowed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from deployers.base import Deployer
from deployers.errors import DeployerError, Unavailable

logger = logging.getLogger(__name__)

PARALLEL_PULLS = 3

_lock = threading.Lock()
_present: set[str] = set()
_pulls: dict[str, Future[None]] = {}
_threads = ThreadPoolExecutor(PARALLEL_PULLS, thread_name_prefix="pull")


def _is_there(deployer: Deployer, image: str) -> bool:
    if image not in _present and deployer.find_image(image) is not None:
        _present.add(image)
    return image in _present


def _pull(deployer: Deployer, image: str) -> None:
    deployer.pull(image)
    _present.add(image)


def _begin(deployer: Deployer, image: str) -> Future[None]:
    with _lock:
        pull = _pulls.get(image)
        if pull is None or pull.done():
            pull = _pulls[image] = _threads.submit(_pull, deployer, image)
        return pull


def ensure_image(deployer: Deployer, image: str, *, deadline: float) -> bool:
    """
    Return when the image is there, and whether it had to be pulled.

    deadline is a time.monotonic() value.

    A pull that takes longer goes on, and Unavailable tells the caller to ask again; a pull that
    fails raises what the deployer said. An image that somebody removes later is pulled again
    by the deployer's start().
    """
    if not deployer.supports_images or _is_there(deployer, image):
        return False
    pull = _begin(deployer, image)
    if not wait([pull], timeout=max(0.0, deadline - time.monotonic())).done:
        raise Unavailable(
            f"the image {image} is still being pulled (the server's log shows how far); ask again "
            f"in a minute."
        )
    pull.result()
    return True


def prefetch(deployer: Deployer, images: Iterable[str]) -> None:
    """Begin to pull what is missing, so that the first create finds it; failures are logged."""
    if not deployer.supports_images:
        return
    for image in images:
        try:
            if not _is_there(deployer, image):
                _begin(deployer, image).add_done_callback(_log_failure)
        except DeployerError as error:
            logger.warning("%s", error)


def _log_failure(pull: Future[None]) -> None:
    error = pull.exception()
    if isinstance(error, DeployerError):
        logger.warning("%s", error)


def forget() -> None:
    """Drop what this process knows of images."""
    with _lock:
        _present.clear()
        _pulls.clear()

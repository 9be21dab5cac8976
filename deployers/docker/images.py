"""Images of one engine: find, pull, tag, remove."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import docker
from docker.auth import resolve_repository_name
from docker.utils import parse_repository_tag

from deployers.docker.engine import Engine, refusal
from deployers.errors import DeployerError, Rejected, Unavailable

logger = logging.getLogger("deployers.docker")

PULL_SILENCE_SECONDS = 120
PULL_SECONDS = 45 * 60
CAN_PULL_SECONDS = 2
PROGRESS_SECONDS = 2

_pull_locks: defaultdict[tuple[str, str], threading.Lock] = defaultdict(threading.Lock)
"""Of the process, because each thread may have a deployer of its own."""


@dataclass(frozen=True, slots=True)
class Image:
    id: str
    user: str
    """The image's USER; "" means root."""

    size_bytes: int

    @property
    def is_root(self) -> bool:
        return self.user.partition(":")[0] in ("", "0", "root")


class Images:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, reference: str) -> Image | None:
        with self._engine.call(f"look for the image {reference}") as api:
            try:
                found = api.inspect_image(reference)
            except docker.errors.NotFound:
                return None
        user = (found.get("Config") or {}).get("User") or ""
        return Image(found["Id"], user, found["Size"])

    def get(self, reference: str) -> Image:
        """Return an image, pulled if it is not here; threads that ask at once pull once."""
        if found := self.find(reference):
            return found
        with _pull_locks[self._engine.address, reference]:
            if found := self.find(reference):
                return found
            self.pull(reference)
        if found := self.find(reference):
            return found
        raise Unavailable(f"The image {reference} was pulled and is gone again: try once more.")

    def can_pull(self, reference: str) -> bool:
        doing = f"ask for the image {reference}"
        try:
            with self._engine.call(doing, timeout=CAN_PULL_SECONDS) as api:
                api.inspect_distribution(reference)
        except DeployerError as error:
            logger.debug("%s is not offered: %s", reference, error)
            return False
        return True

    def pull(self, reference: str) -> None:
        repository, tag = parse_repository_tag(reference)
        doing = f"pull the image {reference}"
        progress = PullProgress(reference)
        deadline = time.monotonic() + PULL_SECONDS
        try:
            with self._engine.call(doing, timeout=PULL_SILENCE_SECONDS) as api:
                for message in api.pull(repository, tag or "latest", stream=True, decode=True):
                    if "error" in message:
                        raise refusal(message["error"], doing, None)
                    if time.monotonic() > deadline:
                        raise Unavailable(f"Docker could not {doing} in {PULL_SECONDS // 60} min.")
                    progress.note(message)
        except DeployerError as error:
            registry = resolve_repository_name(repository)[0]
            kind = Unavailable if isinstance(error, Unavailable) else Rejected
            raise kind(
                f"The image {reference} is not on the engine's machine, and the registry "
                f"{registry} did not give it. {error} Build it (python manage.py buildimage TYPE), "
                f"check the name, or log in with docker login {registry}."
            ) from error
        progress.finish()

    def tag(self, image_id: str, reference: str) -> None:
        repository, tag = parse_repository_tag(reference)
        with self._engine.call(f"tag the image {image_id} as {reference}") as api:
            api.tag(image_id, repository, tag or "latest", force=True)

    def remove(self, image_id: str, *, only_untagged: bool = False) -> None:
        with self._engine.call(f"remove the image {image_id}") as api:
            try:
                tags = api.inspect_image(image_id)["RepoTags"] or []
                if tags and only_untagged:
                    return
                # By its id an engine removes only what has at most one tag.
                for reference in [*tags, image_id]:
                    api.remove_image(reference)
            except docker.errors.NotFound:
                return


class PullProgress:
    """Say in the log how far a pull is, at most every PROGRESS_SECONDS."""

    def __init__(self, reference: str) -> None:
        self._reference = reference
        self._layers: dict[str, tuple[int, int]] = {}
        self._done: set[str] = set()
        self._began = self._said = time.monotonic()
        logger.info("Pulling %s", reference)

    def note(self, message: Mapping[str, object]) -> None:
        layer, status = message.get("id", ""), message.get("status", "")
        if status == "Pulling fs layer":
            self._layers.setdefault(layer, (0, 0))
        elif status == "Downloading":
            detail = message.get("progressDetail") or {}
            self._layers[layer] = (detail.get("current", 0), detail.get("total", 0))
        elif status in ("Pull complete", "Already exists"):
            current, total = self._layers.get(layer, (0, 0))
            self._layers[layer] = (max(current, total), total)
            self._done.add(layer)
        now = time.monotonic()
        if now - self._said >= PROGRESS_SECONDS and self._layers:
            self._said = now
            logger.info("Pulling %s: %s", self._reference, str(self))

    def finish(self) -> None:
        seconds = time.monotonic() - self._began
        logger.info("Pulled %s in %.1f s: %s", self._reference, seconds, str(self))

    def __str__(self) -> str:
        current = sum(one for one, _ in self._layers.values())
        total = sum(one for _, one in self._layers.values())
        share = f"{100 * current // total} %, " if total else ""
        return (
            f"{share}{current / 1e6:.1f} of {total / 1e6:.1f} MB, "
            f"{len(self._done)} of {len(self._layers)} layers"
        )

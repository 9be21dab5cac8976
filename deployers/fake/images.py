"""Images that are only names."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Generator, Mapping
from pathlib import Path

from deployers.errors import Rejected, UnsupportedSpec
from deployers.fake.knobs import Failing, Failure

IMAGE_BYTES = 1_000_000


class FakeImages(Failing):
    """The verbs about images; images None makes them mean nothing."""

    images: dict[str, str] | None
    offered: frozenset[str]
    fail_build: Failure

    def find_image(self, reference: str) -> str | None:
        if self.images is None:
            return super().find_image(reference)
        return reference if reference in self.images.values() else self.images.get(reference)

    def image_size(self, reference: str) -> int | None:
        return IMAGE_BYTES if self.find_image(reference) else None

    def can_pull(self, reference: str) -> bool:
        return reference in self.offered

    def pull(self, reference: str) -> None:
        if self.images is None:
            super().pull(reference)
        self._enter("pull")
        if reference not in self.offered:
            raise Rejected(f"The image {reference} is not here, and no registry offers it.")
        self.images[reference] = _image_id(reference)

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
        if self.images is None:
            raise UnsupportedSpec("These fake sandboxes have no images.")
        self._enter("build")
        dockerfile = dockerfile or context / "Dockerfile"
        steps = dockerfile.read_text().splitlines() if dockerfile.is_file() else ["FROM scratch"]
        for number, step in enumerate(steps, 1):
            yield f"Step {number}/{len(steps)} : {step}"
        self._fail(self.fail_build, str(context))
        image_id = _image_id(f"{steps} {time.monotonic_ns() if no_cache else ''}")
        self.images[image_id] = image_id
        yield f"Successfully built {image_id.removeprefix('sha256:')[:12]}"
        return image_id

    def tag_image(self, image_id: str, reference: str) -> None:
        if self.find_image(image_id) is None:
            raise Rejected(f"There is no image {image_id}.")
        self.images[reference] = image_id

    def remove_image(self, image_id: str, *, only_untagged: bool = False) -> None:
        if self.images is None:
            super().remove_image(image_id)
        tags = [name for name, id_ in self.images.items() if id_ == image_id != name]
        if tags and only_untagged:
            return
        self.images = {name: id_ for name, id_ in self.images.items() if id_ != image_id}


def _image_id(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

"""The tiny image of the Docker tests: built once, kept, and built again when its files change."""

from __future__ import annotations

import functools
import hashlib
import secrets
from pathlib import Path

from deployers.docker import DockerDeployer

TINY = "sandboxplatform-test-tiny:latest"
CONTEXT = Path(__file__).with_name("tiny")


def build_image(deployer: DockerDeployer, context: Path, tag: str = "", **options) -> str:
    """Build an image to the end; return its id."""
    steps = deployer.build(context, **options)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            image_id = end.value
            break
    if tag:
        deployer.tag_image(image_id, tag)
    return image_id


@functools.cache
def ensure_tiny_image() -> str:
    content = b"".join(path.read_bytes() for path in sorted(CONTEXT.iterdir()))
    reference = f"{TINY.partition(':')[0]}:{hashlib.sha256(content).hexdigest()[:12]}"
    deployer = DockerDeployer(instance=f"test-{secrets.token_hex(4)}")
    try:
        if deployer.find_image(reference) is None:
            build_image(deployer, CONTEXT, reference)
        deployer.tag_image(deployer.find_image(reference), TINY)
    finally:
        deployer.close()
    return TINY

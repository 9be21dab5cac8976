"""Which deployer serves here and how fast it answers; and the images of the types."""

from __future__ import annotations

import time
from collections.abc import Iterator

from deployers.base import Deployer
from deployers.errors import DeployerError
from sandboxes import actions, builder, registry
from sandboxes.models.sandbox import new_name
from sandboxes.refusals import Refused
from sandboxplatform.doctor.findings import Finding, fail, ok, warn
from sandboxplatform.doctor.subject import Subject

SLOW_MS = 200
CALLS = 3


def look(subject: Subject) -> Iterator[Finding]:
    wanted = subject.platform.CONTAINER_DEPLOYMENT
    try:
        name, reason = subject.choose_deployer()
        yield ok(f"{name}: {reason}")
        yield judge_call(_call_milliseconds(subject.deployer))
    except DeployerError as error:
        yield fail(
            f"CONTAINER_DEPLOYMENT names {wanted}, which cannot be used"
            if wanted
            else "neither Docker nor the local deployer can be used",
            str(error),
        )


def _call_milliseconds(deployer: Deployer) -> float:
    """Look for a sandbox that is not there: one call, and no work for the engine."""
    took = []
    for _ in range(CALLS):
        begun = time.monotonic()
        deployer.inspect(new_name())
        took.append((time.monotonic() - begun) * 1000)
    return sorted(took)[CALLS // 2]


def judge_call(milliseconds: float) -> Finding:
    if milliseconds <= SLOW_MS:
        return ok(f"a call takes {milliseconds:.1f} ms")
    return warn(
        f"a call takes {milliseconds:.0f} ms",
        "A create makes several: look at the load and the disk of the engine's machine, how many "
        "containers it holds, and how far DOCKER_HOST is.",
    )


def look_for_images(subject: Subject) -> Iterator[Finding]:
    """Say for each type of DEFAULT_SANDBOX_TYPE whether it can be started from something."""
    registry.sync()
    for name in subject.type_names:
        try:
            yield _image_of(name, subject)
        except Refused as error:
            source = "--sandbox-type" if subject.sandbox_type else "DEFAULT_SANDBOX_TYPE"
            yield fail(
                f"there is no type {name!r}",
                f"{error} Change {source}, or enable the type in the admin.",
            )
        except DeployerError as error:
            yield fail(f"the image of {name} cannot be looked for", str(error))


def _image_of(name: str, subject: Subject) -> Finding:
    kind, deployer = actions.find_type(name), subject.deployer
    image = registry.image_of(kind.name, kind.image)
    if not deployer.supports_images:
        if kind.runs_without_image:
            return ok(f"{kind.name} needs none here")
        return fail(
            f"{kind.name} needs an image, and this deployer has none",
            "Set CONTAINER_DEPLOYMENT=docker, or DEFAULT_SANDBOX_TYPE=base.",
        )
    if deployer.find_image(image):
        return ok(f"{image} is here")
    if deployer.can_pull(image):
        return warn(
            f"{image} is not here, but a registry offers it",
            f"`docker pull {image}` now, or the first create waits for it.",
        )
    return fail(f"{image} is neither here nor can it be pulled", _how_to_get(kind.name, image))


def _how_to_get(name: str, image: str) -> str:
    try:
        builder.dockerfile_of(name)
    except builder.BuildFailed:
        return (
            f"Make {image} available to the engine: docker login and docker pull, "
            f"RUNTIME_SANDBOX_REGISTRY and its kin, or the type's image in the admin."
        )
    return f"Build it: python manage.py buildimage {name}"

"""Build a type's image: build, start the result, check its health, and only then move the tag."""

from __future__ import annotations

import getpass
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from django.db import Error, close_old_connections, connections

from deployers.base import Deployer
from deployers.errors import DeployerError
from sandboxes import build_check, registry
from sandboxes.models import ImageBuild, SandboxType
from sandboxes.models.image_build import BuildInProgress, BuildState
from sandboxes.readiness import NotReady
from sandboxes.states import StateConflict

logger = logging.getLogger(__name__)

CONTEXT = Path(__file__).resolve().parent
"""What a Dockerfile may copy from: the images' folders and the guest."""

SAVE_SECONDS = 1.0
LOG_CHARACTERS = 1_000_000
"""How much of the end of a build's log its row keeps."""


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


class _Log:
    """
    What a build has said, saved to its row every SAVE_SECONDS, with the row's lease renewed.

    A thread does it, because a step may be silent for minutes.
    """

    def __init__(self, record: ImageBuild) -> None:
        self._record = record
        self._lost = False
        self._text = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._save_again_and_again, daemon=True)
        self._thread.start()

    def append(self, line: str) -> None:
        """Add a line; raise BuildFailed if the build has been given to somebody else."""
        # PostgreSQL stores no NUL.
        said = line.replace("\0", "\N{REPLACEMENT CHARACTER}")
        self._text = f"{self._text}{said}\n"[-LOG_CHARACTERS:]
        if self._lost:
            raise _taken_over(self._record)

    def close(self) -> str:
        """Stop saving; return the text."""
        self._ended.set()
        self._thread.join()
        return self._text

    def _save_again_and_again(self) -> None:
        try:
            while not self._ended.wait(SAVE_SECONDS):
                close_old_connections()
                try:
                    self._lost = not self._record.renew(log=self._text)
                except Error as error:
                    logger.warning("The build's log could not be saved: %s", error)
        finally:
            connections.close_all()


def _taken_over(record: ImageBuild) -> BuildFailed:
    return BuildFailed(
        f"This build was silent for too long, so that it counts as failed and another may run: "
        f"{record.tag} was not moved. Was the machine suspended, or the database away?"
    )


def _begin(type_name: str) -> ImageBuild:
    """Write the row of a build that begins now; raise BuildFailed while another builds the type."""
    kind = SandboxType.objects.filter(name=type_name).first()
    if kind is None:
        raise BuildFailed(f"There is no sandbox type {type_name!r}: make one in the admin first.")
    tag = registry.image_of(type_name, "")
    try:
        return ImageBuild.objects.begin(kind, tag=tag, requested_by=_whoever_asks())
    except BuildInProgress as error:
        raise BuildFailed(str(error)) from error


def _whoever_asks() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = "unknown"  # a uid that no passwd file knows, as in some containers
    return f"shell:{name}@{socket.gethostname()}"[:150]


def build(type_name: str) -> Iterator[str]:
    """
    Build the image of a type and move its tag to it, yielding what happens line by line.

    Raise BuildFailed with the stage and the reason; the tag then stays where it was. Closing
    the generator, or a KeyboardInterrupt in it, cancels the build. An ImageBuild row tells of
    each attempt from its first line to its end.
    """
    dockerfile = dockerfile_of(type_name)
    record = _begin(type_name)
    log = _Log(record)
    state, ending = BuildState.FAILED, {"detail": "The builder broke; its output says where."}
    try:
        with closing(_steps(record, type_name, dockerfile)) as steps:
            for line in steps:
                log.append(line)
                yield line
    except BuildFailed as error:
        ending = {"detail": str(error).replace("\0", "")}
        raise
    except (KeyboardInterrupt, GeneratorExit):
        state, ending = BuildState.CANCELLED, {"detail": "Cancelled on the way."}
        raise
    finally:
        text = log.close()
        if record.digest:
            # The tag has moved, whatever came after it.
            state = BuildState.SUCCEEDED
            ending = {"digest": record.digest, "size_bytes": record.size_bytes}
        close_old_connections()
        with suppress(StateConflict):
            record.move_to(state, log=text, **ending)


def _steps(record: ImageBuild, type_name: str, dockerfile: Path) -> Iterator[str]:
    """Do the build of a row; its digest and size are set when it ends."""
    deployer = build_check.deployer_for(type_name)
    try:
        yield f"Building {record.tag} with {deployer.check()}"
        if (own := record.sandbox_type.image) and own != record.tag:
            yield f"Mind: the admin says that {type_name} uses {own}, not this image"
        build_check.remove(deployer, build_check.left_over(deployer))
        try:
            image_id = yield from deployer.build(CONTEXT, dockerfile=dockerfile)
        except DeployerError as error:
            raise BuildFailed(f"Building {record.tag} failed: {error}") from error
        yield from _check_and_tag(deployer, record, image_id)
        _remove_images_of_killed_builds(deployer, record)
    except DeployerError as error:
        raise BuildFailed(str(error)) from error
    finally:
        build_check.tidy(deployer)


def _check_and_tag(deployer: Deployer, record: ImageBuild, image_id: str) -> Iterator[str]:
    """Move the row's tag to the image if a sandbox comes up from it; else remove the image."""
    try:
        # Before the check: a builder that is killed in it leaves an image that nothing else names.
        if not record.renew(digest=image_id):
            raise _taken_over(record)
        yield f"Built {image_id}; checking that a sandbox starts from it"
        build_check.check(deployer, image_id)
        if not record.renew():
            raise _taken_over(record)
    except BaseException as error:
        deployer.remove_image(image_id, only_untagged=True)
        record.renew(digest="")
        if not isinstance(error, NotReady | DeployerError):
            raise
        old = deployer.find_image(record.tag)
        kept = f"{record.tag} still names {old}" if old else f"{record.tag} was not made"
        raise BuildFailed(f"The check of the new image failed, {kept}: {error}") from error
    size = deployer.image_size(image_id)
    deployer.tag_image(image_id, record.tag)
    record.digest, record.size_bytes = image_id, size
    yield f"Tagged {record.tag}"


def _remove_images_of_killed_builds(deployer: Deployer, record: ImageBuild) -> None:
    """
    Remove what earlier builders of the type built and were killed before they tagged.

    Behind a build that succeeded, because the layers that both share are its cache.
    """
    of_type = ImageBuild.objects.filter(sandbox_type=record.sandbox_type)
    for killed in of_type.filter(state=BuildState.FAILED).exclude(digest="").defer("log"):
        try:
            deployer.remove_image(killed.digest, only_untagged=True)
            if deployer.find_image(killed.digest) is None:
                of_type.filter(pk=killed.pk).update(digest="")
        except DeployerError as error:
            logger.warning("The image of a build that was killed stays: %s", error)

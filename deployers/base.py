"""The contract every deployer keeps. Read this file before any other in deployers/."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping
from enum import StrEnum
from pathlib import Path

from deployers.errors import UnsupportedSpec
from deployers.observation import Observation
from deployers.specs import NAME, SandboxSpec


class Isolation(StrEnum):
    """What separates a sandbox from its host, weakest first."""

    PROCESS = "process"
    NAMESPACE = "namespace"
    CONTAINER = "container"
    POD = "pod"
    SERVERLESS = "serverless"


class Deployer(ABC):
    """
    Start, watch and remove sandboxes on one kind of infrastructure.

    A deployer keeps no state of its own: the name in the spec is enough to find or remove
    whatever start() made, also after a crash between the two. It imports no model and never
    waits until a guest is ready; waiting, retrying and recording belong to
    sandboxes.lifecycle. Every call has a time limit of its own, and methods may be called
    from several threads at once.

    Every method may raise Unavailable (try again later) or Rejected (do not).

    instance is the id of the installation: it is written on everything that start() makes,
    and inspect_all() sees nothing that does not carry it.
    """

    isolation: Isolation

    needs_host_port = False
    """Must the caller lease a port on this host and put it in the spec?"""

    supports_mounts = False
    """Can directories of this host be shown to the sandbox (workspace, mounts)?"""

    supports_limits = False
    """Are the limits of the spec enforced?"""

    supports_images = False
    """Are image names meaningful here, with pull, find_image, build and tag_image?"""

    supports_logs = False
    """Can logs() read what the sandbox wrote?"""

    supports_stop = False
    """Can stop() keep a sandbox for a later start()?"""

    keeps_files_when_stopped = False
    """Does the whole file system survive stop(), and not the workspace alone?"""

    supports_pause = False
    """Can pause() freeze a sandbox until unpause()?"""

    supports_watch = False
    """Can watch() tell at once which sandboxes ended?"""

    supports_network = True
    """Does it honour Network.NONE and Network.OUTBOUND?"""

    def __init__(self, *, instance: str) -> None:
        self.instance = instance

    @abstractmethod
    def check(self) -> str:
        """
        Return one line that says what was found, e.g. the engine and its version.

        Raise Unavailable or Rejected, naming what to install, start or change, if sandboxes
        cannot be started here.
        """

    def validate(self, spec: SandboxSpec) -> None:
        """Raise UnsupportedSpec if the spec asks for what this deployer lacks; call no one."""
        if not NAME.fullmatch(spec.name):
            raise UnsupportedSpec(
                f"{spec.name!r} cannot name a sandbox: use at most 63 lower-case letters, digits "
                "and dashes, with a letter or digit at both ends."
            )
        if (spec.mounts or spec.workspace) and not self.supports_mounts:
            raise UnsupportedSpec(f"{type(self).__name__} cannot mount directories of this host.")
        if self.needs_host_port and spec.host_port is None:
            raise UnsupportedSpec(f"{type(self).__name__} needs a host port.")
        if spec.network is not None and not self.supports_network:
            raise UnsupportedSpec(
                f"{type(self).__name__} cannot choose what a sandbox reaches from inside: "
                "leave the network of the sandbox type unset."
            )

    @abstractmethod
    def start(self, spec: SandboxSpec) -> Observation:
        """
        Ask the infrastructure for a sandbox called spec.name; do not wait for its guest.

        Starting a name that already runs is a success, so that a caller who died after the
        call can safely make it again; starting one that was stopped or paused continues it
        as it was made; one that is BROKEN is replaced. A name that belongs to someone else is Rejected.
        On an error nothing of a new sandbox is left behind as far as this deployer can reach.
        """

    @abstractmethod
    def inspect(self, name: str) -> Observation:
        """
        Return what the infrastructure knows of this sandbox now.

        A sandbox that is not there is an answer, Phase.ABSENT, not an error.
        """

    @abstractmethod
    def remove(self, name: str) -> None:
        """
        Remove the sandbox and all that start() made for it, except its workspace.

        Removing a name that is not there is a success. On return nothing of the sandbox is
        left, or an error has been raised.
        """

    @abstractmethod
    def inspect_all(self) -> Iterator[Observation]:
        """
        Yield one Observation for each sandbox there that carries our instance.

        Meant to be cheap for many: started_at may be when it was made.
        """

    def stop(self, name: str) -> None:
        """End its processes and keep its files. Needs supports_stop; absent is an error."""
        raise UnsupportedSpec(f"{type(self).__name__} cannot stop a sandbox and keep it.")

    def pause(self, name: str) -> None:
        """
        Freeze the processes of a READY sandbox, memory and connections kept.

        It uses no CPU then, and does not answer. One that is PAUSED is a success, any other,
        absent ones too, is Rejected. Needs supports_pause.
        """
        raise UnsupportedSpec(f"{type(self).__name__} cannot pause a sandbox.")

    def unpause(self, name: str) -> None:
        """
        Continue a PAUSED sandbox where it was.

        One that is READY is a success, any other is Rejected. Needs supports_pause.
        """
        raise UnsupportedSpec(f"{type(self).__name__} cannot pause a sandbox.")

    def watch(self, stop: threading.Event) -> Iterator[str]:
        """
        Yield the name of each sandbox that ended or was removed, as soon as it shows.

        What ends after this call has returned is yielded, whenever the first name is asked
        for; what ended while nobody watched may be. Why it ended is not told, and ends by
        stop() and remove() are among them, so a caller looks at what it knows of the name. The
        iterator is for one thread and blocks no other call. It ends within half a second once
        stop is set, and raises Unavailable when the infrastructure stops telling: compare all
        then, and watch again. Needs supports_watch; without it compare all at intervals.
        """
        raise UnsupportedSpec(f"{type(self).__name__} cannot tell which sandboxes ended.")

    def logs(self, name: str, *, lines: int = 200) -> str:
        """Return the last lines the sandbox wrote, "" if it is absent. Needs supports_logs."""
        raise UnsupportedSpec(f"{type(self).__name__} cannot read logs.")

    def find_image(self, reference: str) -> str | None:
        """Return the id of an image that is here already, else None. Needs supports_images."""
        raise UnsupportedSpec(f"{type(self).__name__} has no images.")

    def image_size(self, reference: str) -> int | None:
        """Return the bytes of an image that is here, else None. Needs supports_images."""
        raise UnsupportedSpec(f"{type(self).__name__} has no images.")

    def can_pull(self, reference: str) -> bool:
        """Tell, within about two seconds, whether a registry offers it. Needs supports_images."""
        raise UnsupportedSpec(f"{type(self).__name__} has no images.")

    def pull(self, reference: str) -> None:
        """
        Fetch an image, with its progress in the log. Needs supports_images.

        Rejected names the image, the registry and the registry's answer.
        """
        raise UnsupportedSpec(f"{type(self).__name__} has no images.")

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
        """
        Build an image without a tag: yield its log line by line, return its id.

        Needs supports_images. Rejected carries the failing step; what was built until then
        stays in the engine's cache only.
        """
        raise UnsupportedSpec(f"{type(self).__name__} cannot build images.")

    def tag_image(self, image_id: str, reference: str) -> None:
        """Move a tag to an image. Needs supports_images."""
        raise UnsupportedSpec(f"{type(self).__name__} has no images.")

    def remove_image(self, image_id: str, *, only_untagged: bool = False) -> None:
        """
        Remove an image that no sandbox uses, with its tags; absent is a success.

        With only_untagged one that has a tag is left as it is. Needs supports_images.
        """
        raise UnsupportedSpec(f"{type(self).__name__} has no images.")

    def remove_shared(self) -> None:  # noqa: B027  # most deployers share nothing
        """
        Remove what start() made for all sandboxes of this instance, where none uses it.

        start() makes it anew.
        """

    def close(self) -> None:  # noqa: B027  # most deployers hold no connection
        """Give back connections; sandboxes are not touched."""

"""The folders of this host that sandboxes see as /workspace."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings

from sandboxes import deployment
from sandboxes.models import Sandbox
from sandboxes.refusals import Refused


def folder_for(name: str) -> Path:
    """Return the folder of this host in which a sandbox's workspace is kept."""
    key = name.removeprefix(settings.PLATFORM.CONTAINER_PREFIX_KEY)
    return Path(settings.PLATFORM.DEFAULT_MOUNT_DIR).absolute() / key


def choose(name: str, mount_dir: str | None) -> tuple[str, bool]:
    """Return the workspace's folder and whether it is ours to delete."""
    if not deployment.current().supports_mounts:
        return "", False
    if mount_dir is None:
        return str(folder_for(name)), True
    if not settings.PLATFORM.ALLOW_MOUNT_DIR:
        raise Refused(
            "It names a folder of the server, which is not allowed here: leave it out, or set "
            "ALLOW_MOUNT_DIR=True on the server.",
            field="mount_dir",
        )
    return str(_checked(mount_dir)), False


def _checked(mount_dir: str) -> Path:
    """Return the folder, if a sandbox may be given it; links are followed first."""
    folder = Path(mount_dir).resolve()
    ours = [
        Path(place).resolve() for place in (settings.DATA_DIR, settings.PLATFORM.DEFAULT_MOUNT_DIR)
    ]
    if not folder.is_dir():
        raise Refused(f"{folder} is not a folder of the server.", field="mount_dir")
    if any(folder.is_relative_to(place) or place.is_relative_to(folder) for place in ours):
        raise Refused(f"{folder} belongs to the platform.", field="mount_dir")
    if folder.stat().st_uid == 0:
        # A root server would give the folder's files to the sandbox's user.
        raise Refused(
            f"{folder} belongs to root; give it to the user that sandboxes run as, e.g. "
            f"chown 1000 {folder}.",
            field="mount_dir",
        )
    return folder


def make(sandbox: Sandbox) -> None:
    """Make the sandbox's folder, if it is ours to make."""
    if not (sandbox.workspace and sandbox.owns_workspace):
        return
    folder = Path(sandbox.workspace)
    try:
        # Nobody else on this host has any business in there, whatever its files allow.
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        # What was never made must not stand in the way of the sandbox's end.
        Sandbox.objects.filter(pk=sandbox.pk).update(workspace="")
        sandbox.workspace = ""
        raise

"""Who a sandbox runs as, so that it and this server can both use the workspace."""

from __future__ import annotations

import os
from pathlib import Path

from deployers.errors import Rejected

FALLBACK_UID = 1000
"""For images whose USER is a name: its number is known only inside the image."""


def take_over(workspace: Path, image_user: str) -> str:
    """
    Make the workspace usable for a sandbox, and return the "uid:gid" it has to run as.

    An ordinary user can only work with its own files: the sandbox runs as that user. Root
    gives its own files in the workspace to the image's user; a workspace that belongs to
    somebody else keeps its owner, and the sandbox runs as that owner.
    """
    try:
        status = workspace.stat()
        if os.geteuid() != 0:
            return f"{os.geteuid()}:{os.getegid()}"
        if status.st_uid != 0:
            return f"{status.st_uid}:{status.st_gid}"
        uid, gid = _numbers(image_user)
        _give(workspace, uid, gid)
    except OSError as error:
        raise Rejected(
            f"The workspace {workspace} cannot be used: {error.strerror}. "
            "Create it before the sandbox is started."
        ) from error
    return f"{uid}:{gid}"


def _numbers(image_user: str) -> tuple[int, int]:
    uid, _, gid = image_user.partition(":")
    if not uid.isdecimal():
        return FALLBACK_UID, FALLBACK_UID
    return int(uid), int(gid) if gid.isdecimal() else int(uid)


def _give(workspace: Path, uid: int, gid: int) -> None:
    # What a sandbox left here is hostile: no link is followed, and every name is looked up
    # in its open directory.
    for _, directories, files, directory in os.fwalk(workspace, follow_symlinks=False):
        for name in (".", *directories, *files):
            if os.stat(name, dir_fd=directory, follow_symlinks=False).st_uid == 0:
                os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)

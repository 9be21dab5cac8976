"""Delete what a sandbox has written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def delete_tree(tree: Path) -> None:
    """
    Delete a directory whole; one that is not there is a success.

    Nothing of a sandbox may run any more that could write to it meanwhile.
    """
    try:
        shutil.rmtree(tree)
    except FileNotFoundError:
        return
    except PermissionError:
        # Without root, a directory that the sandbox closed to itself is closed to us as well.
        tree.chmod(0o700)
        for directory, names, _ in os.walk(tree):
            for each in (Path(directory, name) for name in names):
                if not each.is_symlink():
                    each.chmod(0o700)
        shutil.rmtree(tree)

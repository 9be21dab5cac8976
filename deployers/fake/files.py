"""The files that a fake guest keeps."""

from __future__ import annotations

import time
from pathlib import Path, PurePosixPath


class Files:
    """Those in memory, or those of the directory that the guest was given."""

    def __init__(self, kept: dict[str, bytes], workspace: Path | None) -> None:
        self.kept = kept
        self.workspace = workspace

    def names(self) -> list[str]:
        if self.workspace is None:
            return sorted(self.kept)
        return sorted(str(one.relative_to(self.workspace)) for one in self.workspace.rglob("*"))

    def read(self, path: str) -> bytes | None:
        if self.workspace is None:
            return self.kept.get(key(path))
        target = self.workspace / key(path)
        return target.read_bytes() if target.is_file() else None

    def write(self, path: str, content: bytes) -> None:
        if self.workspace is None:
            self.kept[key(path)] = content
        else:
            target = self.workspace / key(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)

    def remove(self, path: str) -> None:
        self.kept.pop(key(path), None)
        if self.workspace is not None:
            (self.workspace / key(path)).unlink(missing_ok=True)


def key(path: str) -> str:
    """Return a path as it is kept: from the workspace on."""
    return str(PurePosixPath(path)).removeprefix("/workspace").lstrip("/")


def entry(path: str, size: int) -> dict[str, object]:
    """Return what the wire says of a file."""
    kept, now = key(path), int(time.time() * 1000)
    return {"path": kept, "name": Path(kept).name, "type": "file", "size": size, "mtime_ms": now}

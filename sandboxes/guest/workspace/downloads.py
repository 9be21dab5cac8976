"""Hand files out, whole or a range of them, in constant memory."""

from __future__ import annotations

import codecs
import os
import re
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass

from anyio.to_thread import run_sync
from starlette.exceptions import HTTPException

from .paths import Paths

CHUNK = 1024 * 1024


@dataclass(slots=True)
class OpenFile:
    """A regular file of the workspace, open for reading."""

    fd: int
    size: int
    path: str

    def close(self) -> None:
        os.close(self.fd)


def open_file(paths: Paths, path: str) -> OpenFile:
    """Open a file; raises HTTPException 404 or 409. Blocks."""
    with paths.place(path) as place:
        # O_NONBLOCK, because opening a FIFO would otherwise wait for a writer.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(place.name, flags, dir_fd=place.directory)
        except FileNotFoundError:
            raise HTTPException(404, f"{place.path} does not exist.") from None
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode):
            return OpenFile(fd, status.st_size, place.path)
        os.close(fd)
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise HTTPException(409, f"{place.path} is {kind} and cannot be read as a file.")


def require_text(file: OpenFile) -> None:
    """Raise HTTPException 415 unless the whole file is UTF-8. Blocks."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    try:
        while data := os.pread(file.fd, CHUNK, offset):
            decoder.decode(data)
            offset += len(data)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise HTTPException(
            415, f"{file.path} is not UTF-8 text; read it with format=bytes."
        ) from None


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes of a file from start up to but not including end."""

    start: int
    end: int


def requested_span(header: str | None, file: OpenFile) -> Span | None:
    """
    Return the span of a Range header, None for the whole file.

    One range is understood; several, or another unit, mean the whole file, as RFC 9110 allows.
    Raises HTTPException 416 for a span that begins after the end.
    """
    wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", header.strip()) if header else None
    if wanted is None or wanted.groups() == ("", ""):
        return None
    first, last = wanted.groups()
    if not first:
        start, end = max(0, file.size - int(last)), file.size
    else:
        start, end = int(first), min(int(last) + 1, file.size) if last else file.size
        if last and int(last) < int(first):
            return None
    if start >= file.size:
        raise HTTPException(
            416,
            f"{file.path} has {file.size} bytes; the range begins after its end.",
            headers={"content-range": f"bytes */{file.size}"},
        )
    return Span(start, end)


async def stream(file: OpenFile, span: Span) -> AsyncIterator[bytes]:
    """Yield a span of a file in chunks."""
    offset = span.start
    while offset < span.end:
        data = await run_sync(os.pread, file.fd, min(CHUNK, span.end - offset), offset)
        if not data:
            return  # cut short meanwhile; the missing length tells the caller
        yield data
        offset += len(data)

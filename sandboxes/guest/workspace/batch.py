"""Many files in one multipart body: all of them land, or none does."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from starlette.exceptions import HTTPException

from .paths import MissingParent, Paths
from .uploads import Staging, file_to_replace


class Batch:
    """
    The files of one multipart body, fed in pieces of any size.

    A body names its targets in `paths` fields, before, between or after the files; without any,
    the files' own names count. So files wait in the workspace's root until the end. Nothing is
    kept in memory but names. The methods block.
    """

    LONGEST_FIELD = 64 * 1024
    MOST_PARTS = 20_000

    def __init__(self, paths: Paths, boundary: bytes) -> None:
        self._feed = _multipart_parser(boundary, self)
        self._paths = paths
        with paths.place(paths.root) as root:
            self._staging = Staging(root)
        self._staged: list[str] = []
        self._filenames: list[str] = []
        self._targets: list[str] = []
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._field: bytearray | None = None
        self._ended = False

    def write(self, data: bytes) -> None:
        self._feed(data)

    def land(self) -> list[tuple[str, os.stat_result]]:
        """Check every target, then let every file land; return paths and what is there."""
        if not self._ended:
            raise HTTPException(400, "The multipart body ends before its last boundary.")
        targets = self._targets or self._filenames
        if len(targets) != len(self._staged):
            raise HTTPException(
                400,
                f"The body has {len(self._staged)} 'files' but {len(targets)} 'paths'; "
                "give one path for each file, or none at all.",
            )
        for target in targets:
            if not target:
                raise HTTPException(400, "A file has neither a path nor a file name.")
            with contextlib.suppress(MissingParent), self._paths.place(target) as place:
                file_to_replace(place)
        landed = []
        for target, name in zip(targets, self._staged, strict=True):
            with self._paths.place(target, make_parents=True) as place:
                landed.append((place.path, self._staging.land(name, place)))
        return landed

    def discard(self) -> None:
        self._staging.discard()

    # What the parser calls, in the order of the body.

    def on_part_begin(self) -> None:
        if len(self._staged) + len(self._targets) >= self.MOST_PARTS:
            raise HTTPException(413, f"One batch takes at most {self.MOST_PARTS} parts.")
        self._disposition = b""
        self._header = (bytearray(), bytearray())

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def on_header_end(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = bytes(value)
        self._header = (bytearray(), bytearray())

    def on_headers_finished(self) -> None:
        from python_multipart.multipart import parse_options_header

        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name == "paths":
            self._field = bytearray()
        elif name == "files":
            self._field = None
            self._staged.append(self._staging.begin())
            self._filenames.append(options.get(b"filename", b"").decode("utf-8", "replace"))
        else:
            raise HTTPException(422, f"Field '{name}' is not known here; known: files, paths.")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._field is None:
            self._staging.write(memoryview(data)[start:end])
            return
        self._field += data[start:end]
        if len(self._field) > self.LONGEST_FIELD:
            raise HTTPException(413, "A path in the field 'paths' is too long.")

    def on_part_end(self) -> None:
        if self._field is None:
            self._staging.end()
        else:
            try:
                self._targets.append(self._field.decode())
            except UnicodeDecodeError:
                raise HTTPException(422, "A path in the field 'paths' is not UTF-8.") from None

    def on_end(self) -> None:
        self._ended = True


def _multipart_parser(boundary: bytes, batch: Batch) -> Callable[[bytes], object]:
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser

    names = (
        "on_part_begin",
        "on_header_field",
        "on_header_value",
        "on_header_end",
        "on_headers_finished",
        "on_part_data",
        "on_part_end",
        "on_end",
    )
    parser = MultipartParser(boundary, {name: getattr(batch, name) for name in names})

    def feed(data: bytes) -> object:
        try:
            return parser.write(data)
        except FormParserError as error:
            raise HTTPException(400, f"The multipart body is broken: {error}.") from error

    return feed


def boundary_of(content_type: str) -> bytes:
    """Return the boundary a Content-Type header names; raises HTTPException 400 or 415."""
    from python_multipart.multipart import parse_options_header

    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        raise HTTPException(415, "files:batch takes a body of multipart/form-data.")
    if not options.get(b"boundary"):
        raise HTTPException(400, "The Content-Type header names no boundary.")
    return options[b"boundary"]

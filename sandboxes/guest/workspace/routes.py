"""The workspace's endpoints: what they take and what they answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from anyio.to_thread import run_sync
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ..bodies import TEXT, Field, read_fields
from ..exchange import answer
from . import downloads, entries
from .batch import Batch, boundary_of
from .paths import Paths
from .uploads import Staging, file_to_replace

BLOCK = 1024 * 1024
"""Bytes gathered before a thread writes them; a hop for every network packet would be slow."""


class WorkspaceRoutes:
    def __init__(self, root: str) -> None:
        self._paths = Paths(root)

    def routes(self, prefix: str) -> list[Route]:
        table = [
            ("GET", "file", self._read_file),
            ("PUT", "file", self._write_file),
            ("POST", "files:batch", self._write_files),
            ("GET", "list", self._list),
            ("GET", "exists", self._exists),
            ("DELETE", "entry", self._remove),
            ("POST", "move", self._move),
            ("POST", "mkdir", self._make_directory),
        ]
        return [Route(f"{prefix}/{name}", call, methods=[verb]) for verb, name, call in table]

    async def _read_file(self, request: Request) -> Response:
        path = _query(request, "path")
        style = request.query_params.get("format") or "text"
        if style not in ("text", "bytes"):
            raise HTTPException(422, f"Query parameter 'format' is {style!r}; use text or bytes.")
        file = await run_sync(downloads.open_file, self._paths, path)
        try:
            if style == "text":
                await run_sync(downloads.require_text, file)
            span = downloads.requested_span(request.headers.get("range"), file)
        except BaseException:
            file.close()
            raise
        part = span or downloads.Span(0, file.size)
        headers = {"content-length": str(part.end - part.start), "accept-ranges": "bytes"}
        if span is not None:
            headers["content-range"] = f"bytes {span.start}-{span.end - 1}/{file.size}"
        return _FileResponse(
            file,
            part,
            status_code=200 if span is None else 206,
            headers=headers,
            media_type="text/plain" if style == "text" else "application/octet-stream",
        )

    async def _write_file(self, request: Request) -> Response:
        path = _query(request, "path")
        staging = await run_sync(self._stage, path)
        try:
            name = staging.begin()
            async for block in _blocks(request):
                await run_sync(staging.write, block)
            return answer(await run_sync(self._land, staging, name, path))
        finally:
            await run_sync(staging.discard)

    def _stage(self, path: str) -> Staging:
        with self._paths.place(path, make_parents=True) as place:
            file_to_replace(place)
            return Staging(place)

    def _land(self, staging: Staging, name: str, path: str) -> dict[str, Any]:
        staging.end()
        # Found anew: links on the way may have changed while the body came in.
        with self._paths.place(path, make_parents=True) as place:
            return entries.entry(place.path, staging.land(name, place))

    async def _write_files(self, request: Request) -> Response:
        boundary = boundary_of(request.headers.get("content-type", ""))
        batch = Batch(self._paths, boundary)
        try:
            async for block in _blocks(request):
                await run_sync(batch.write, block)
            landed = await run_sync(batch.land)
            return answer([entries.entry(path, status) for path, status in landed])
        finally:
            await run_sync(batch.discard)

    async def _list(self, request: Request) -> Response:
        path = _query(request, "path")
        depth = request.query_params.get("depth") or "1"
        if not depth.isdecimal() or int(depth) < 1:
            raise HTTPException(
                422, f"Query parameter 'depth' is {depth!r}; use a whole number from 1."
            )
        found = await run_sync(entries.list_entries, self._paths, path, int(depth))
        return await run_sync(answer, found)

    async def _exists(self, request: Request) -> Response:
        found = await run_sync(entries.exists, self._paths, _query(request, "path"))
        return answer({"exists": found})

    async def _remove(self, request: Request) -> Response:
        await run_sync(entries.remove, self._paths, _query(request, "path"))
        return Response(status_code=204)

    async def _move(self, request: Request) -> Response:
        fields = await read_fields(request, Field("source", TEXT), Field("destination", TEXT))
        move = partial(entries.move, self._paths, **fields)
        return answer(await run_sync(move))

    async def _make_directory(self, request: Request) -> Response:
        fields = await read_fields(request, Field("path", TEXT))
        created = await run_sync(entries.make_directory, self._paths, fields["path"])
        return answer({"created": created})


class _FileResponse(StreamingResponse):
    """Stream a file and close it, also where the stream never begins."""

    def __init__(self, file: downloads.OpenFile, span: downloads.Span, **more: Any) -> None:
        super().__init__(downloads.stream(file, span), **more)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()


def _query(request: Request, name: str) -> str:
    value = request.query_params.get(name)
    if value is None:
        raise HTTPException(422, f"Query parameter '{name}' is missing.")
    return value


async def _blocks(request: Request) -> AsyncIterator[bytes]:
    """Yield a request's body in blocks of at least BLOCK bytes, except for the last."""
    gathered = bytearray()
    async for chunk in request.stream():
        gathered += chunk
        if len(gathered) >= BLOCK:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)

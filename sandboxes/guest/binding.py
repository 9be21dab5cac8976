"""
POST /v1/bind: give a guest that was started for nobody what its caller would have started it with.

{"environment": {NAME: "value"}, "files": [{"path", "content": base64, "mode": optional}]}, both
optional. The answer is {"bound": true}, also to the same content again, since an answer may be
lost, and to none at all, which binds nothing. Other content is refused with 409.
"""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from .bodies import LIST, OBJECT, TEXT, Field, read_fields
from .config import Config
from .exchange import answer
from .shell import LONGEST_ARGUMENT
from .workspace.paths import Paths
from .workspace.together import NewFile, write_together

RESERVED = frozenset({"SECRET_TOKEN", "NGINX_TIMEOUT", "WORKSPACE_DIR"})
RESERVED_PREFIX = "GUEST_"
"""What the platform tells the guest at its start."""

ENVIRONMENT_LIMIT = 1024 * 1024
"""Bytes; Linux starts no program with much more than this, arguments included."""

SMALL_FILES = 16
SMALL_BYTES = 256 * 1024
"""Up to these, files are written at once: to begin with threads would take longer."""

MOST_FILES = 500
"""Each may be in a directory of its own, which is kept open, and 1024 is a common limit."""


class Binding:
    """What this guest was bound to, if it was; use is called with the config that results."""

    def __init__(self, config: Config, use: Callable[[Config], None]) -> None:
        self._config = config
        self._use = use
        self._paths = Paths(config.workspace)
        self._turn = asyncio.Lock()
        self._bound: bytes | None = None

    async def bind(self, request: Request) -> Response:
        fields = await read_fields(
            request, Field("environment", OBJECT, default=None), Field("files", LIST, default=None)
        )
        environment = fields["environment"] or {}
        _check_environment(environment)
        files = self._read_files(fields["files"] or [])
        if environment or files:
            async with self._turn:
                await self._bind_once(environment, files)
        return answer({"bound": True})

    async def _bind_once(self, environment: Mapping[str, str], files: list[NewFile]) -> None:
        content = _digest(environment, files)
        if self._bound is not None:
            if self._bound != content:
                raise HTTPException(
                    409, "This sandbox is bound already, to other content; take a fresh one."
                )
            return
        config = self._config.with_environment(environment)
        if len(files) <= SMALL_FILES and sum(len(file.content) for file in files) <= SMALL_BYTES:
            write_together(self._paths, files)
        else:
            await asyncio.to_thread(write_together, self._paths, files)
        if environment:
            config.make_room_for_pip()
            self._use(config)
        self._bound = content

    def _read_files(self, items: list[Any]) -> list[NewFile]:
        if len(items) > MOST_FILES:
            raise HTTPException(
                413,
                f"Field 'files' holds more than {MOST_FILES} files; upload them with POST "
                "workspace/files:batch.",
            )
        files: dict[str, NewFile] = {}
        for number, item in enumerate(items):
            field = f"files[{number}]"
            file = _read_file(field, item)
            path = self._paths.absolute(file.path)
            if path in files:
                raise HTTPException(422, f"Field '{field}.path' is that of an earlier file, too.")
            files[path] = file
        return list(files.values())


def _check_environment(environment: Mapping[str, Any]) -> None:
    """Raise HTTPException 422 that names the variable, and never its value."""
    size = 0
    for name, value in environment.items():
        _check_name(name)
        field = f"environment.{name}"
        Field(field, TEXT, may_be_empty=True).check(value)
        length = len(name.encode()) + len(value.encode()) + 1
        if length > LONGEST_ARGUMENT:
            raise HTTPException(
                422, f"Field '{field}' is longer than the {LONGEST_ARGUMENT} bytes Linux takes."
            )
        size += length
    if size > ENVIRONMENT_LIMIT:
        raise HTTPException(
            422,
            f"Field 'environment' is larger than {ENVIRONMENT_LIMIT // 1024**2} MiB; no program "
            "could be started with it.",
        )


def _check_name(name: str) -> None:
    key, equals, _ = name.partition("=")
    try:
        name.encode()
    except UnicodeEncodeError:
        encodable = False
    else:
        encodable = True
    if not key or equals or "\0" in key or not encodable:
        # What follows the sign is most likely a value that should not be shown.
        raise HTTPException(
            422, f"Field 'environment' has a name that no variable can have: {key + equals!r}."
        )
    if name in RESERVED or name.startswith(RESERVED_PREFIX):
        raise HTTPException(
            422, f"Field 'environment.{name}' belongs to the platform; leave it out."
        )


def _read_file(field: str, item: Any) -> NewFile:
    if not isinstance(item, dict):
        raise HTTPException(422, f"Field '{field}' should be an object.")
    for name in item:
        if name not in ("path", "content", "mode"):
            raise HTTPException(
                422, f"Field '{field}' has an unknown part {name!r}; known: path, content, mode."
            )
    for name in ("path", "content"):
        if name not in item:
            raise HTTPException(422, f"Field '{field}.{name}' is missing.")
        Field(f"{field}.{name}", TEXT, may_be_empty=name == "content").check(item[name])
    mode = item.get("mode")
    if mode is not None and (type(mode) is not int or not 0 <= mode <= 0o777):
        raise HTTPException(
            422, f"Field '{field}.mode' should be a whole number from 0 to {0o777} (0o777)."
        )
    try:
        content = binascii.a2b_base64(item["content"], strict_mode=True)
    except ValueError:
        raise HTTPException(422, f"Field '{field}.content' is not base64.") from None
    return NewFile(item["path"], content, mode)


def _digest(environment: Mapping[str, str], files: list[NewFile]) -> bytes:
    """Return what is the same for the same content only, whatever its order."""
    digest = hashlib.sha256(json.dumps(sorted(environment.items())).encode())
    for file in sorted(files, key=lambda file: file.path):
        about = [file.path, file.mode, len(file.content)]
        digest.update(json.dumps(about).encode())
        digest.update(file.content)
    return digest.digest()

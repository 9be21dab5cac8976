"""Read a JSON request: the body, its size, its fields, and a sentence for whatever is wrong."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

BODY_LIMIT = 64 * 1024 * 1024

_REQUIRED = object()


@dataclass(frozen=True, slots=True)
class Kind:
    """A JSON type a field may have: the Python types and their name in an error."""

    types: tuple[type, ...]
    name: str


TEXT = Kind((str,), "a string")
NUMBER = Kind((int, float), "a number")
FLAG = Kind((bool,), "true or false")
OBJECT = Kind((dict,), "an object")
LIST = Kind((list,), "a list")


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a request body; without a default it is required. None allows null."""

    name: str
    kind: Kind
    default: Any = _REQUIRED
    above_zero: bool = False
    may_be_empty: bool = False

    def check(self, value: Any) -> None:
        """Raise HTTPException 422, naming the field, unless the value fits."""
        if value is None and self.default is None:
            return
        # bool is a subclass of int, and true is no number on the wire.
        wrong_bool = isinstance(value, bool) and bool not in self.kind.types
        if wrong_bool or not isinstance(value, self.kind.types):
            raise HTTPException(422, f"Field '{self.name}' should be {self.kind.name}.")
        if isinstance(value, str):
            self._check_text(value)
        elif self.above_zero and not (math.isfinite(value) and value > 0):
            raise HTTPException(422, f"Field '{self.name}' should be above 0.")

    def _check_text(self, value: str) -> None:
        if not value and not self.may_be_empty:
            raise HTTPException(422, f"Field '{self.name}' is empty.")
        if "\0" in value:
            raise HTTPException(
                422, f"Field '{self.name}' holds a NUL character, which no program can be given."
            )
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise HTTPException(
                422, f"Field '{self.name}' is not valid Unicode at character {error.start}."
            ) from error


async def read_fields(request: Request, *fields: Field) -> dict[str, Any]:
    """
    Return the value of every field, with defaults filled in.

    Raises HTTPException 400 for what is not JSON, 413 above BODY_LIMIT, 422 for a body that
    is no object and for a missing, unknown or wrong field.
    """
    body = await _read_json(request)
    known = {field.name: field for field in fields}
    for name in body:
        if name not in known:
            raise HTTPException(
                422, f"Field '{name}' is not known here; known: {', '.join(known) or 'none'}."
            )
    values = {}
    for field in fields:
        if field.name in body:
            field.check(body[field.name])
            values[field.name] = body[field.name]
        elif field.default is _REQUIRED:
            raise HTTPException(422, f"Field '{field.name}' is missing.")
        else:
            values[field.name] = field.default
    return values


async def _read_json(request: Request) -> dict[str, Any]:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > BODY_LIMIT:
        raise _too_large()
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > BODY_LIMIT:
            raise _too_large()
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"The request body is not valid JSON: {error}.") from error
    if not isinstance(body, dict):
        raise HTTPException(422, "The request body should be a JSON object.")
    return body


def _too_large() -> HTTPException:
    return HTTPException(
        413,
        f"The request body is larger than {BODY_LIMIT // 1024**2} MiB. "
        "Upload files with PUT workspace/file, which has no limit.",
    )

"""
What makes a warm sandbox its caller's own: one call that gives its guest environment and files.

Our guest has a route for that (POST /v1/bind); one that has not, of an older or a foreign
image, can still be given files, through the workspace routes that every guest has.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from sandboxes.readiness import connect

SECONDS = 10.0
KNOCK_SECONDS = 2.0
"""A machine accepts a connection for its programs: a busy guest is no reason to wait longer."""

FORBIDDEN = 403
REFUSAL = "x-guest-refusal"
"""The header in which our guest says why it answers 403: "secret", or "system"."""

OPEN_TO_ITS_OWN = ("/fastapi/healthz", "/fastapi/tools/", "/fastapi/mcp/")
"""Routes where a foreign guest, which has no such header, forbids nothing but a wrong secret."""


@dataclass(frozen=True, slots=True)
class File:
    """A file that a new sandbox is to have; path is below its workspace."""

    path: str
    content: bytes
    mode: int | None = None


class GuestGone(Exception):
    """Nobody answers at the sandbox's address: it has ended."""


class AnotherGuest(GuestGone):
    """The guest there has another secret: the address was given to another sandbox."""


class BindingRefused(Exception):
    """The guest would not have it: the caller has to change something."""


def answered_by_another(path: str, status: int, headers: Mapping[str, str]) -> bool:
    """Tell whether an answer is another sandbox's guest's, to which our secret means nothing."""
    if status != FORBIDDEN:
        return False
    reason = headers.get(REFUSAL)
    return reason == "secret" if reason else path.startswith(OPEN_TO_ITS_OWN)


def _ask(
    url: str,
    secret: str,
    method: str,
    path: str,
    body: bytes | None,
    kind: str,
    seconds: float = SECONDS,
) -> tuple[int, bytes]:
    connection = connect(url, seconds)
    headers = {"Authorization": f"Bearer {secret}"}
    if body is not None:
        headers["Content-Type"] = kind
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        if answered_by_another(path, answer.status, answer.headers):
            raise AnotherGuest("another sandbox's guest answers there")
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise GuestGone(str(error) or type(error).__name__) from error
    finally:
        connection.close()


def _refuse_errors(status: int, answer: bytes) -> None:
    if status < 400:
        return
    try:
        detail = json.loads(answer)["detail"]
    except (ValueError, KeyError, TypeError):
        detail = f"it answered {status}"
    raise BindingRefused(str(detail))


def can_bind(url: str, secret: str) -> bool:
    """Ask a guest whether it has the route; False also where it does not answer."""
    try:
        status, answer = _ask(url, secret, "GET", "/v1/capabilities", None, "")
        return status == 200 and "bind" in json.loads(answer)["features"]
    except (GuestGone, ValueError, KeyError, TypeError):
        return False


def warm_up(url: str, secret: str) -> None:
    """
    Run a first command in a guest, which has more to do for the first one than for others.

    A guest that fails at it will show that to its caller, or to a health check.
    """
    body = json.dumps({"command": "true"}).encode()
    with contextlib.suppress(GuestGone):
        _ask(url, secret, "POST", "/fastapi/tools/run_shell_command", body, "application/json")


def bind(
    url: str,
    secret: str,
    environment: Mapping[str, str],
    files: Sequence[File],
    *,
    seconds: float = SECONDS,
) -> None:
    """
    Give a guest that can bind what its caller asked for, in so many seconds; safe to repeat.

    Raise GuestGone, or BindingRefused with the guest's reason.
    """
    wish: dict[str, object] = {}
    if environment:
        wish["environment"] = dict(environment)
    if files:
        wish["files"] = [
            {
                "path": file.path,
                "content": base64.b64encode(file.content).decode(),
                **({} if file.mode is None else {"mode": file.mode}),
            }
            for file in files
        ]
    body = json.dumps(wish).encode()
    _refuse_errors(*_ask(url, secret, "POST", "/v1/bind", body, "application/json", seconds))


def knock(url: str) -> None:
    """See whether somebody listens at a guest's address; raise GuestGone if nobody does."""
    connection = connect(url, KNOCK_SECONDS)
    try:
        connection.connect()
    except OSError as error:
        raise GuestGone(str(error) or type(error).__name__) from error
    finally:
        connection.close()


def is_of_another(url: str, secret: str) -> bool:
    """See whether a guest with another secret answers; False also where none does."""
    try:
        _ask(url, secret, "GET", "/fastapi/healthz", None, "")
    except AnotherGuest:
        return True
    except GuestGone:
        return False
    return False


def put_files(url: str, secret: str, files: Sequence[File], *, seconds: float = SECONDS) -> None:
    """Write files through the workspace routes; raise GuestGone or BindingRefused."""
    for file in files:
        path = f"/fastapi/workspace/file?path={quote(file.path, safe='')}"
        kind = "application/octet-stream"
        _refuse_errors(*_ask(url, secret, "PUT", path, file.content, kind, seconds))


def give_files(url: str, secret: str, files: Sequence[File]) -> None:
    """Write files to a sandbox whichever way its guest can; raise GuestGone or BindingRefused."""
    if can_bind(url, secret):
        bind(url, secret, {}, files)
    else:
        put_files(url, secret, files)

"""What a caller is told of an exception, whichever edge it reached: status, detail and headers."""

from __future__ import annotations

import logging
from typing import NamedTuple

from django.core.exceptions import RequestDataTooBig

from deployers.errors import DeployerError, Unavailable
from sandboxes import lifecycle, tokens
from sandboxes.bookkeeping import DATABASE_AWAY
from sandboxes.refusals import Refusal

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = "5"


KNOWN = (
    Refusal,
    tokens.InvalidToken,
    lifecycle.StartFailed,
    DeployerError,
    *DATABASE_AWAY,
    RequestDataTooBig,
)
"""What told() has an answer for; everything else is a fault of the server."""


class Told(NamedTuple):
    """One answer: its HTTP status, its detail, and what goes with the status."""

    status: int
    detail: str
    headers: dict[str, str]


def told(error: Exception) -> Told | None:
    """Return what to tell of an exception; None for what is not in KNOWN."""
    if isinstance(error, DATABASE_AWAY):
        logger.error("The database did not answer: %s", error)
        return told_as(503, "The server's database did not answer; try again.")
    if isinstance(error, RequestDataTooBig):
        return told_as(413, "The body is larger than this server takes.")
    status = _status(error)
    if status is None:
        return None
    field = getattr(error, "field", "")
    return told_as(status, f"{field}: {error}" if field else str(error))


def told_as(status: int, detail: str) -> Told:
    """Return this status and detail with the headers that the status asks for."""
    headers = {}
    if status == 503:
        headers["Retry-After"] = RETRY_AFTER_SECONDS
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Told(status, detail, headers)


def _status(error: Exception) -> int | None:
    match error:
        case Refusal():
            return error.status
        case tokens.InvalidToken():
            return 401
        case lifecycle.StartFailed():
            return 503 if error.again_later else 502
        case Unavailable():
            return 503
        case DeployerError():
            return 502
    return None

"""Every error body has a detail, one string that a person can act on."""

from __future__ import annotations

import logging

from django.core.exceptions import RequestDataTooBig
from django.db import InterfaceError, OperationalError
from rest_framework import status
from rest_framework.exceptions import APIException, ErrorDetail, ValidationError
from rest_framework.response import Response
from rest_framework.views import exception_handler

from deployers.errors import DeployerError, Unavailable
from sandboxes import lifecycle, tokens
from sandboxes.refusals import Refusal

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = "5"

_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (tokens.InvalidToken, status.HTTP_401_UNAUTHORIZED),
    (RequestDataTooBig, status.HTTP_413_REQUEST_ENTITY_TOO_LARGE),
    (Unavailable, status.HTTP_503_SERVICE_UNAVAILABLE),
    (DeployerError, status.HTTP_502_BAD_GATEWAY),
)


class Unprocessable(ValidationError):
    status_code = status.HTTP_422_UNPROCESSABLE_ENTITY


def _sentences(found: object, path: str = "") -> list[str]:
    """Flatten DRF's nested errors into "field: sentence"."""
    if isinstance(found, dict):
        return [
            sentence
            for name, inner in found.items()
            for sentence in _sentences(
                inner, path if name == "non_field_errors" else f"{path}.{name}".lstrip(".")
            )
        ]
    if isinstance(found, list):
        return [sentence for inner in found for sentence in _sentences(inner, path)]
    return [f"{path}: {found}" if path else str(found)]


def answer(error: Exception, context: dict[str, object]) -> Response | None:
    """Turn an exception of a view into an answer; DRF's EXCEPTION_HANDLER."""
    if isinstance(error, lifecycle.StartFailed):
        return _start_failed(error)
    if isinstance(error, Refusal):
        return _plain(error, error.status)
    for kind, code in _STATUS:
        if isinstance(error, kind):
            return _plain(error, code)
    if isinstance(error, OperationalError | InterfaceError):
        logger.error("The database did not answer: %s", error)
        return Response(
            {"detail": "The server's database did not answer; try again."},
            status=status.HTTP_503_SERVICE_UNAVAILABLE,
            headers={"Retry-After": RETRY_AFTER_SECONDS},
        )
    response = exception_handler(error, context)
    if response is None or not isinstance(error, APIException):
        return response
    if not (isinstance(error.detail, ErrorDetail) and set(response.data) == {"detail"}):
        response.data = {"detail": "; ".join(_sentences(error.detail))}
    return response


def _plain(error: Exception, code: int) -> Response:
    field = getattr(error, "field", "")
    headers = {}
    if code == status.HTTP_503_SERVICE_UNAVAILABLE:
        headers["Retry-After"] = RETRY_AFTER_SECONDS
    if code == status.HTTP_401_UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    text = "The body is larger than this server takes." if code == 413 else str(error)
    detail = f"{field}: {text}" if field else text
    return Response({"detail": detail}, status=code, headers=headers)


def _start_failed(error: lifecycle.StartFailed) -> Response:
    if not error.again_later:
        return Response({"detail": str(error)}, status=status.HTTP_502_BAD_GATEWAY)
    return Response(
        {"detail": str(error)},
        status=status.HTTP_503_SERVICE_UNAVAILABLE,
        headers={"Retry-After": RETRY_AFTER_SECONDS},
    )

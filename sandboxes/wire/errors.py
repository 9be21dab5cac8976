"""Every error body has a detail, one string that a person can act on."""

from __future__ import annotations

from rest_framework import status
from rest_framework.exceptions import APIException, ErrorDetail, ValidationError
from rest_framework.response import Response
from rest_framework.views import exception_handler

from sandboxes.telling import told


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
    if known := told(error):
        return Response({"detail": known.detail}, status=known.status, headers=known.headers)
    response = exception_handler(error, context)
    if response is None or not isinstance(error, APIException):
        return response
    if not (isinstance(error.detail, ErrorDetail) and set(response.data) == {"detail"}):
        response.data = {"detail": "; ".join(_sentences(error.detail))}
    return response

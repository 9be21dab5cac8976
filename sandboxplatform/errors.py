"""What Django answers by itself: pages below /admin/, a JSON detail everywhere else."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views import defaults

from sandboxes import log_context

PAGES = "/admin/"


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    if request.path.startswith(PAGES):
        return defaults.bad_request(request, exception)
    return JsonResponse({"detail": f"The request was not understood: {exception}"}, status=400)


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    if request.path.startswith(PAGES):
        return defaults.permission_denied(request, exception)
    return JsonResponse({"detail": "This is not allowed."}, status=403)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    if request.path.startswith(PAGES):
        return defaults.page_not_found(request, exception)
    detail = f"There is nothing at {request.path}; /api/schema/swagger-ui/ lists every route."
    return JsonResponse({"detail": detail}, status=404)


def server_error(request: HttpRequest) -> HttpResponse:
    if request.path.startswith(PAGES):
        return defaults.server_error(request)
    context = log_context.current.get()
    where = f" under request {context.request}" if context else ""
    detail = f"The server failed; its log tells why{where}."
    return JsonResponse({"detail": detail}, status=500)

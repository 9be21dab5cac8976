from __future__ import annotations

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from sandboxes import tokens


class BearerAuthentication(BaseAuthentication):
    """Tell the caller from the Authorization header; see sandboxes.tokens."""

    def authenticate(self, request: Request) -> tuple[tokens.Caller, None]:
        # The wire's application has looked the token up already, before it read the body.
        known = getattr(request._request, "caller", None)
        if known is not None:
            return known, None
        try:
            return tokens.authenticate(request.META.get("HTTP_AUTHORIZATION", "")), None
        except tokens.InvalidToken as error:
            raise AuthenticationFailed(str(error)) from None

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class BearerScheme(OpenApiAuthenticationExtension):
    target_class = BearerAuthentication
    name = "bearer"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer"}

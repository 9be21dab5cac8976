"""Who is calling: BEARER_TOKEN or an API token, told from the Authorization header."""

from __future__ import annotations

import hmac
import time
from dataclasses import dataclass

from django.conf import settings
from django.contrib.auth import get_user_model

from sandboxes.models import ApiToken
from sandboxes.threads import in_thread

BEARER_USER = "bearer"
"""The user that callers with BEARER_TOKEN, or with none where none is needed, act as."""

FRESH_SECONDS = 1.0
"""How long a look-up of an API token stands; a revoked one is refused after at most this."""

_known: dict[str, tuple[float, Caller | None]] = {}


class InvalidToken(Exception):
    """The caller sent no token, or one that is not known here."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The user a request acts for."""

    user_id: int
    name: str
    is_superuser: bool
    is_authenticated: bool = True

    @property
    def actor(self) -> str:
        return f"user:{self.name}"

    @property
    def pk(self) -> int:
        return self.user_id


def _caller(user: object) -> Caller:
    return Caller(user.pk, user.get_username(), user.is_superuser)


def _bearer_caller() -> Caller:
    user, created = get_user_model().objects.get_or_create(username=BEARER_USER)
    if created:
        user.set_unusable_password()
        user.save(update_fields=["password"])
    return _caller(user)


def _look_up(secret: str) -> Caller | None:
    if not secret:
        return _bearer_caller()
    expected = settings.PLATFORM.BEARER_TOKEN
    if expected and hmac.compare_digest(secret.encode(), expected.encode()):
        return _bearer_caller()
    token = (
        ApiToken.objects.filter(
            digest=ApiToken.digest_of(secret), revoked_at=None, owner__is_active=True
        )
        .select_related("owner")
        .first()
    )
    return _caller(token.owner) if token else None


def secret_of(header: str) -> str:
    """
    Return the secret of an Authorization header.

    Raise InvalidToken where one is needed and the header has none. Where none is needed
    (BEARER_TOKEN is empty, which runsandboxserver allows on loopback addresses and with
    ALLOW_ANONYMOUS), a missing one is the empty string.
    """
    scheme, _, secret = header.partition(" ")
    if scheme.lower() == "bearer" and secret.strip():
        return secret.strip()
    if settings.PLATFORM.BEARER_TOKEN:
        raise InvalidToken("Send the header Authorization: Bearer <token>.")
    return ""


def _from_memory(secret: str) -> tuple[bool, Caller | None]:
    # Looked up by digest: a dictionary compares keys in a time that depends on them.
    found = _known.get(ApiToken.digest_of(secret))
    if found is None or time.monotonic() - found[0] > FRESH_SECONDS:
        return False, None
    return True, found[1]


def authenticate(header: str) -> Caller:
    """Return who an Authorization header speaks for; raise InvalidToken for nobody."""
    secret = secret_of(header)
    hit, caller = _from_memory(secret)
    if not hit:
        caller = _look_up(secret)
        if caller is None and not settings.PLATFORM.BEARER_TOKEN:
            # Anybody is served here, so an unknown token changes nothing: the SDK's snippet
            # sends one whether the server wants it or not.
            caller = _bearer_caller()
        if len(_known) > 10_000:
            _known.clear()
        _known[ApiToken.digest_of(secret)] = (time.monotonic(), caller)
    if caller is None:
        raise InvalidToken("This token is not known, or was revoked.")
    return caller


async def authenticate_async(header: str) -> Caller:
    """Do what authenticate() does, without leaving the event loop for a token that is known."""
    hit, caller = _from_memory(secret_of(header))
    if hit and caller is not None:
        return caller
    return await in_thread(authenticate, header)


def forget() -> None:
    """Drop what this process remembers of tokens."""
    _known.clear()

from __future__ import annotations

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from sandboxes import tokens
from sandboxes.models import ApiToken
from tests.factories import make_user

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _nothing_remembered():
    tokens.forget()
    yield
    tokens.forget()


def test_the_bearer_token_is_the_bearer_user(settings):
    caller = tokens.authenticate(f"Bearer {settings.PLATFORM.BEARER_TOKEN}")
    assert (caller.name, caller.is_superuser) == (tokens.BEARER_USER, False)


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic dGVzdA==", "Bearer wrong"])
def test_anything_else_is_refused(header):
    with pytest.raises(tokens.InvalidToken):
        tokens.authenticate(header)


def test_an_api_token_is_its_owner_until_it_is_revoked():
    token, secret = ApiToken.issue(make_user("alice"), "ci")
    assert tokens.authenticate(f"Bearer {secret}").name == "alice"
    ApiToken.objects.filter(pk=token.pk).update(revoked_at=timezone.now())
    tokens.forget()
    with pytest.raises(tokens.InvalidToken):
        tokens.authenticate(f"Bearer {secret}")


def test_a_revoked_token_is_forgotten_by_itself(monkeypatch):
    token, secret = ApiToken.issue(make_user("alice"), "ci")
    tokens.authenticate(f"Bearer {secret}")
    ApiToken.objects.filter(pk=token.pk).update(revoked_at=timezone.now())
    monkeypatch.setattr(tokens, "FRESH_SECONDS", 0)
    with pytest.raises(tokens.InvalidToken):
        tokens.authenticate(f"Bearer {secret}")


def test_an_inactive_user_is_refused():
    user = make_user("alice")
    _, secret = ApiToken.issue(user, "ci")
    type(user).objects.filter(pk=user.pk).update(is_active=False)
    with pytest.raises(tokens.InvalidToken):
        tokens.authenticate(f"Bearer {secret}")


def test_only_the_digest_is_kept():
    token, secret = ApiToken.issue(make_user(), "ci")
    stored = " ".join(
        str(value) for value in ApiToken.objects.filter(pk=token.pk).values()[0].values()
    )
    assert secret not in stored


def test_the_command_prints_the_secret_and_refuses_a_second_label(capsys):
    call_command("createtoken", "carol", "--label", "laptop")
    secret = capsys.readouterr().out.strip()
    assert tokens.authenticate(f"Bearer {secret}").name == "carol"
    with pytest.raises(CommandError, match="laptop"):
        call_command("createtoken", "carol", "--label", "laptop")

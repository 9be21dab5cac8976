"""Tokens are issued and revoked in the admin; nobody lends themselves somebody else's rights."""

from __future__ import annotations

import pytest
from django.urls import reverse

from sandboxes.models import ApiToken
from tests.factories import make_user

pytestmark = pytest.mark.django_db

ADD = "admin:sandboxes_apitoken_add"
LIST = "admin:sandboxes_apitoken_changelist"


def issue(client, owner, label="ci"):
    return client.post(reverse(ADD), {"owner": owner.pk, "label": label}, follow=True)


def test_a_new_token_is_shown_once_and_can_be_revoked(as_user):
    client = as_user(root=True)
    page = issue(client, make_user("alice"))
    assert b"sbx_" in page.content
    token = ApiToken.objects.get()
    assert token.owner.username == "alice"
    assert b"shown this once" not in client.get(reverse(LIST)).content
    client.post(
        reverse(LIST),
        {"action": "revoke_selected", "_selected_action": [token.pk]},
    )
    assert ApiToken.objects.get().revoked_at is not None


def test_whoever_is_not_a_superuser_issues_tokens_for_themselves_only(as_user):
    root = make_user("root", is_superuser=True)
    client = as_user("view_apitoken", "add_apitoken")
    assert b">root</option>" not in client.get(reverse(ADD)).content
    page = issue(client, root)
    assert "Select a valid choice" in str(page.context["adminform"].form.errors)
    assert not ApiToken.objects.exists()
    issue(client, make_user("user2False"))
    assert ApiToken.objects.get().owner.username == "user2False"


def test_a_label_that_is_in_use_is_refused_beside_its_field(as_user):
    client, alice = as_user(root=True), make_user("alice")
    issue(client, alice)
    page = issue(client, alice)
    assert "choose another, or revoke it" in str(page.context["adminform"].form.errors["label"])
    ApiToken.objects.update(revoked_at="2026-01-01T00:00Z")
    issue(client, alice)
    assert ApiToken.objects.count() == 2

"""The admin as a viewer, an operator and root."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission
from django.urls import reverse

from sandboxes import actions
from sandboxes.models import ApiToken, Sandbox
from sandboxes.states import State, StopReason
from tests.factories import make_sandbox, make_user

pytestmark = pytest.mark.django_db(transaction=True)

PAGES = ("sandbox", "sandboxtype", "session", "portlease", "event", "apitoken")


@pytest.fixture
def as_user(client):
    def log_in(*codenames, root=False):
        user = make_user(f"user{len(codenames)}{root}", is_staff=True, is_superuser=root)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client.force_login(user)
        return client

    return log_in


def stop(client, sandbox):
    return client.post(
        reverse("admin:sandboxes_sandbox_changelist"),
        {"action": "stop_selected", "_selected_action": [sandbox.pk]},
    )


@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens_for_root(as_user, fake, page):
    make_sandbox()
    client = as_user(root=True)
    assert client.get(reverse(f"admin:sandboxes_{page}_changelist")).status_code == 200


def test_a_sandbox_cannot_be_added_changed_or_deleted_even_by_root(as_user, fake):
    client, sandbox = as_user(root=True), make_sandbox()
    page = reverse("admin:sandboxes_sandbox_change", args=[sandbox.pk])
    assert client.get(page).status_code == 200
    assert client.post(page, {"state": "warm"}).status_code == 403
    assert client.get(reverse("admin:sandboxes_sandbox_add")).status_code == 403
    delete = reverse("admin:sandboxes_sandbox_delete", args=[sandbox.pk])
    assert client.post(delete, {"post": "yes"}).status_code == 403
    assert Sandbox.objects.get().state == State.RUNNING


def test_a_viewer_cannot_stop_a_sandbox(as_user, fake, alice):
    sandbox = actions.create(alice)
    client = as_user("view_sandbox")
    assert b"stop_selected" not in client.get(reverse("admin:sandboxes_sandbox_changelist")).content
    stop(client, sandbox)
    assert Sandbox.objects.get().state == State.RUNNING


def test_an_operator_stops_a_sandbox_and_the_event_names_them(as_user, fake, alice):
    sandbox = actions.create(alice)
    client = as_user("view_sandbox", "stop_sandbox")
    assert stop(client, sandbox).status_code == 302
    row = Sandbox.objects.get()
    assert (row.state, row.stop_reason) == (State.STOPPED, StopReason.ADMIN)
    assert row.events.get(new_state="stopped").actor == "admin:user2False"


def test_the_environment_of_a_sandbox_is_not_shown(as_user, fake):
    sandbox = make_sandbox(environment={"KEY": "hunter2"})
    page = as_user(root=True).get(reverse("admin:sandboxes_sandbox_change", args=[sandbox.pk]))
    assert b"hunter2" not in page.content


def test_a_new_token_is_shown_once_and_can_be_revoked(as_user):
    client = as_user(root=True)
    owner = make_user("alice")
    add = reverse("admin:sandboxes_apitoken_add")
    page = client.post(add, {"owner": owner.pk, "label": "ci"}, follow=True)
    assert b"sbx_" in page.content
    token = ApiToken.objects.get()
    again = client.get(reverse("admin:sandboxes_apitoken_changelist"))
    assert b"shown this once" not in again.content
    client.post(
        reverse("admin:sandboxes_apitoken_changelist"),
        {"action": "revoke_selected", "_selected_action": [token.pk]},
    )
    assert ApiToken.objects.get().revoked_at is not None


@pytest.mark.parametrize("page", PAGES)
def test_a_change_list_costs_the_same_queries_for_few_rows_and_many(
    as_user, fake, page, django_assert_max_num_queries
):
    client = as_user(root=True)
    url = reverse(f"admin:sandboxes_{page}_changelist")
    for count in (2, 20):
        for _ in range(count):
            make_sandbox()
        with django_assert_max_num_queries(12):
            client.get(url)

"""The admin as a viewer, an operator and root."""

from __future__ import annotations

import itertools

import pytest
from django.apps import apps
from django.contrib import admin
from django.db import models
from django.urls import reverse

from pools.models import Pool
from sandboxes import actions
from sandboxes.admin.base import ReadOnlyAdmin
from sandboxes.models import ApiToken, Event, Installation, PortLease, Sandbox, SandboxType, Session
from sandboxes.states import State, StopReason
from tests.factories import make_build, make_sandbox, make_type, make_user

pytestmark = pytest.mark.django_db(transaction=True)

MODELS = [
    model for app in ("sandboxes", "pools") for model in apps.get_app_config(app).get_models()
]
WRITTEN_BY_THE_PLATFORM = {
    "event",
    "imagebuild",
    "installation",
    "portlease",
    "sandbox",
    "session",
}
every_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.model_name)

_numbers = itertools.count(1)


def make_rows():
    """One more row of every model there may be more of."""
    number = next(_numbers)
    kind = SandboxType.objects.create(name=f"kind-{number}", environment={"A": "b"})
    owner = make_user(f"owner-{number}")
    session = Session.objects.create(owner=owner, key=f"session-{number}")
    sandbox = make_sandbox(sandbox_type=kind, owner=owner, session=session)
    Event.objects.create(sandbox=sandbox, new_state="running", actor="server")
    PortLease.objects.create(port=20000 + number, sandbox=sandbox)
    make_build(sandbox_type=kind)
    Pool.objects.create(sandbox_type=kind)
    ApiToken.issue(owner, "ci")
    Installation.current_id()


def page_of(model, name, *args):
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{name}", args=args)


def act(client, action, *rows):
    return client.post(
        page_of(type(rows[0]), "changelist"),
        {"action": action, "_selected_action": [row.pk for row in rows]},
    )


def release(client, sandbox):
    return act(client, "release_selected", sandbox)


def snapshot():
    return {model: list(model.objects.order_by("pk").values()) for model in MODELS}


@every_model
def test_every_page_opens_for_root(as_user, fake, model):
    make_rows()
    client = as_user(root=True)
    row = model.objects.first()
    for page in (page_of(model, "changelist"), page_of(model, "change", row.pk)):
        assert client.get(page).status_code == 200


@every_model
def test_a_page_can_be_searched_filtered_and_walked_by_date(as_user, fake, model):
    make_rows()
    client, page = as_user(root=True), page_of(model, "changelist")
    options = admin.site.get_model_admin(model)
    one_row_alone = model is Installation
    assert one_row_alone or (options.search_fields and options.list_filter)
    assert client.get(page, {"q": "no such words"}).status_code == 200
    dated = {field.name for field in model._meta.fields if isinstance(field, models.DateTimeField)}
    if dated - {"leased_at", "retry_at"}:
        assert options.date_hierarchy in dated
        year = {f"{options.date_hierarchy}__year": 2000}
        assert client.get(page, year).context["cl"].result_count == 0


def test_what_the_platform_writes_is_read_only():
    read_only = {
        model._meta.model_name
        for model in MODELS
        if isinstance(admin.site.get_model_admin(model), ReadOnlyAdmin)
    }
    assert read_only == WRITTEN_BY_THE_PLATFORM


@every_model
def test_a_viewer_sees_each_page_and_no_action_works(as_user, fake, model):
    make_rows()
    options = admin.site.get_model_admin(model)
    client = as_user(f"view_{model._meta.model_name}")
    before = snapshot()
    row = model.objects.first()
    assert b'<select name="action"' not in client.get(page_of(model, "changelist")).content
    for action in (*options.actions, "delete_selected"):
        act(client, action, row)
    change = page_of(model, "change", row.pk)
    assert client.get(change).status_code == 200
    assert client.post(change, {"name": "mine"}).status_code == 403
    assert client.get(page_of(model, "add")).status_code == 403
    assert client.post(page_of(model, "delete", row.pk), {"post": "yes"}).status_code == 403
    assert snapshot() == before


@every_model
def test_every_action_says_which_permission_it_needs(model):
    for name in admin.site.get_model_admin(model).actions:
        function = getattr(admin.site.get_model_admin(model), name)
        assert function.allowed_permissions, name


@every_model
def test_without_a_permission_a_page_is_closed(as_user, fake, model):
    assert as_user().get(page_of(model, "changelist")).status_code == 403


def test_a_sandbox_cannot_be_added_changed_or_deleted_even_by_root(as_user, fake):
    client, sandbox = as_user(root=True), make_sandbox()
    page = reverse("admin:sandboxes_sandbox_change", args=[sandbox.pk])
    assert client.get(page).status_code == 200
    assert client.post(page, {"state": "warm"}).status_code == 403
    assert client.get(reverse("admin:sandboxes_sandbox_add")).status_code == 403
    delete = reverse("admin:sandboxes_sandbox_delete", args=[sandbox.pk])
    assert client.post(delete, {"post": "yes"}).status_code == 403
    assert Sandbox.objects.get().state == State.RUNNING


def test_a_viewer_cannot_release_a_sandbox(as_user, fake, alice):
    sandbox = actions.create(alice)
    client = as_user("view_sandbox")
    assert b"release_selected" not in client.get(page_of(Sandbox, "changelist")).content
    release(client, sandbox)
    assert Sandbox.objects.get().state == State.RUNNING


def test_an_operator_releases_a_sandbox_and_the_event_names_them(as_user, fake, alice):
    sandbox = actions.create(alice)
    client = as_user("view_sandbox", "stop_sandbox")
    assert b"Release selected sandboxes" in client.get(page_of(Sandbox, "changelist")).content
    assert release(client, sandbox).status_code == 302
    row = Sandbox.objects.get()
    assert (row.state, row.stop_reason) == (State.STOPPED, StopReason.ADMIN)
    assert row.events.get(new_state="stopped").actor == "admin:user2False"


def test_the_environment_of_a_sandbox_is_not_shown(as_user, fake):
    sandbox = make_sandbox(environment={"KEY": "hunter2"})
    page = as_user(root=True).get(reverse("admin:sandboxes_sandbox_change", args=[sandbox.pk]))
    assert b"hunter2" not in page.content


@every_model
def test_a_change_list_costs_the_same_queries_for_few_rows_and_many(
    as_user, fake, model, django_assert_max_num_queries
):
    client = as_user(root=True)
    make_type()
    for count in (2, 10):
        for _ in range(count):
            make_rows()
        with django_assert_max_num_queries(12):
            client.get(page_of(model, "changelist"))

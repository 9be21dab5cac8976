"""Types are edited in the admin; what no sandbox could be started with is refused by field."""

from __future__ import annotations

import pytest
from django.urls import reverse

from sandboxes import registry
from sandboxes.models import SandboxType
from tests.factories import make_sandbox, make_type

pytestmark = pytest.mark.django_db


@pytest.fixture
def post(as_user):
    """Send the change form of a type as root, with these fields changed."""
    client = as_user(root=True)

    def send(kind, **fields):
        page = reverse("admin:sandboxes_sandboxtype_change", args=[kind.pk])
        form = client.get(page).context["adminform"].form
        values = {name: form[name].value() for name in form.fields}
        filled = {name: value for name, value in values.items() if value not in (None, False)}
        return client.post(page, {**filled, **fields})

    return send


def errors_of(response):
    return response.context["adminform"].form.errors


def test_an_edited_type_is_kept_at_the_next_start(post):
    kind = make_type("base")
    assert post(kind, memory_mb="256", environment='{"LANG": "C.UTF-8"}').status_code == 302
    registry.sync()
    kind.refresh_from_db()
    assert (kind.memory_mb, kind.environment) == (256, {"LANG": "C.UTF-8"})


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("environment", '["A"]', "must be an object of names and strings, not a list"),
        ("environment", '{"A": 1}', "The environment variable A must be a string, not a number"),
        ("environment", '{"A=B": "c"}', "cannot be the name of an environment variable"),
        ("environment", '{"SECRET_TOKEN": "x"}', "SECRET_TOKEN belongs to the platform"),
        ("environment", '{"GUEST_PORT": "1"}', "GUEST_PORT belongs to the platform"),
        ("environment", "{", "Enter a valid JSON"),
        ("runtime_config", '["shm"]', "must be an object of names and values"),
        ("runtime_config", "5", "must be an object of names and values"),
    ],
)
def test_what_no_sandbox_can_be_given_is_refused_beside_its_field(post, field, value, sentence):
    kind = make_type("base")
    errors = errors_of(post(kind, **{field: value}))
    assert list(errors) == [field]
    assert sentence in errors[field][0]


@pytest.mark.parametrize("value", ["", "null"])
def test_an_emptied_field_is_an_empty_object(post, value):
    kind = make_type("base")
    assert post(kind, environment=value, runtime_config=value).status_code == 302
    kind.refresh_from_db()
    assert (kind.environment, kind.runtime_config) == ({}, {})


def test_a_built_in_types_name_stays_and_it_cannot_be_deleted(as_user, post):
    kind = make_type("base")
    post(kind, name="other")
    assert SandboxType.objects.filter(name="base").exists()
    delete = reverse("admin:sandboxes_sandboxtype_delete", args=[kind.pk])
    assert as_user(root=True).post(delete, {"post": "yes"}).status_code == 403


def test_a_type_shows_how_long_its_sandboxes_take(as_user):
    kind = make_type()
    make_sandbox(sandbox_type=kind, timeline={"phases": [["guest ready", 123.0]]})
    page = as_user(root=True).get(reverse("admin:sandboxes_sandboxtype_change", args=[kind.pk]))
    assert "<td>guest ready</td><td>123.0 ms</td>" in page.content.decode()

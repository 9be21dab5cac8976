"""What a user can set, run or call stands in the README."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.urls import URLPattern, URLResolver, get_resolver
from drf_spectacular.generators import SchemaGenerator

from sandboxes.wire.urls import ROUTES
from sandboxplatform.setting_table import BASE_DIR, SETTINGS

README = (BASE_DIR / "README.md").read_text()


def table_rows():
    return {
        match[1]: match[0] for match in re.finditer(r"^\| `([A-Z][A-Z0-9_]+)` \|.*$", README, re.M)
    }


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_stands_in_the_readmes_table_as_it_is(setting):
    default = setting.default
    if isinstance(default, list | tuple):
        default = ",".join(map(str, default))
    shown = "none" if default is None else str(default).replace(str(BASE_DIR) + "/", "") or "empty"
    meaning = setting.meaning + (" (not available yet)" if setting.planned else "")
    assert table_rows().get(setting.name) == f"| `{setting.name}` | {shown} | {meaning} |"


def test_the_table_names_no_setting_that_is_not_read():
    assert set(table_rows()) == {setting.name for setting in SETTINGS}


@pytest.mark.parametrize(
    "command",
    sorted(
        file.stem for file in BASE_DIR.glob("*/management/commands/*.py") if file.stem != "__init__"
    ),
)
def test_every_command_stands_in_the_readme(command):
    assert f"python manage.py {command}" in README


@pytest.mark.parametrize("name", ROUTES)
def test_every_route_of_the_wire_stands_in_the_readme(name):
    assert f"`{name}`" in README


def routes(resolver, prefix="/"):
    for pattern in resolver.url_patterns:
        path = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            if not path.startswith("/admin/"):
                yield from routes(pattern, path)
        elif isinstance(pattern, URLPattern):
            yield re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", path)


@pytest.mark.django_db
def test_the_schema_lists_every_route_with_its_answers():
    schema = SchemaGenerator().get_schema(request=None, public=True)
    pages = {"/api/schema/swagger-ui/"}
    missing = set(routes(get_resolver())) - set(schema["paths"]) - pages
    assert missing == set()
    assert "/proxy/{identity}/{path}" in schema["paths"]
    for name in ROUTES:
        for path in (f"/{name}", f"/{name}_async"):
            operation = schema["paths"][path]["post"]
            if ROUTES[name].body().fields:
                assert operation["requestBody"]["content"]["application/json"]["schema"]
            assert {"200", "401", "422"} <= set(operation["responses"]), path


def test_no_document_is_left_out_of_the_readmes_map():
    for file in Path(BASE_DIR).glob("*.md"):
        assert file.name == "README.md" or file.name in README

"""Types from code become rows once; afterwards the rows are the admin's."""

from __future__ import annotations

import inspect
import sys

import pytest

from sandboxes import registry
from sandboxes.models import SandboxType
from sandboxes.registry import ExtensionError, SandboxRegistry

EXTENSION = """
from dataclasses import dataclass
from sandboxes.registry import SandboxRegistry

@SandboxRegistry.register("acme/{name}:1", "{name}", resource_limits={limits})
@dataclass
class Sandbox:
    size: "int" = 1
"""


@pytest.fixture(autouse=True)
def _own_definitions(monkeypatch):
    monkeypatch.setattr(SandboxRegistry, "definitions", dict(SandboxRegistry.definitions))


@pytest.fixture
def extension(tmp_path, monkeypatch):
    """Write an extension called NAME.py into a folder that Python imports from; return its path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def write(name, text=EXTENSION, limits="None"):
        file = tmp_path / f"{name}.py"
        file.write_text(text.replace("{name}", name).replace("{limits}", limits))
        return str(file)

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def register(**options):
    return SandboxRegistry.register("acme/boat:1", "boat", **options)(type("Boat", (), {}))


def test_the_decorator_takes_what_the_references_takes():
    signature = inspect.signature(SandboxRegistry.register)
    assert list(signature.parameters) == [
        "image_name",
        "sandbox_type",
        "resource_limits",
        "security_level",
        "timeout",
        "description",
        "environment",
        "runtime_config",
    ]
    assert signature.parameters["security_level"].default == "medium"


@pytest.mark.django_db
def test_what_is_registered_becomes_a_row():
    register(
        resource_limits={"memory": "1g", "cpu": "1.5"},
        security_level="high",
        timeout=90,
        description="A boat",
        environment={"SAIL": "up"},
        runtime_config={"shm_size": "1g"},
    )
    registry.sync()
    row = SandboxType.objects.get(name="boat")
    assert (row.image, row.memory_mb, row.cpus) == ("acme/boat:1", 1024, 1.5)
    assert (row.security_level, row.timeout_seconds, row.description) == ("high", 90, "A boat")
    assert (row.environment, row.runtime_config) == ({"SAIL": "up"}, {"shm_size": "1g"})
    assert (row.enabled, row.built_in) == (True, False)
    row.full_clean()


@pytest.mark.django_db
def test_a_row_that_was_edited_is_not_overwritten_at_the_next_start():
    register(resource_limits={"memory": "1g"})
    registry.sync()
    SandboxType.objects.filter(name="boat").update(memory_mb=64, enabled=False, image="mine:2")
    SandboxType.objects.filter(name="base").update(description="Ours")
    registry.sync()
    row = SandboxType.objects.get(name="boat")
    assert (row.memory_mb, row.enabled, row.image) == (64, False, "mine:2")
    assert SandboxType.objects.get(name="base").description == "Ours"


@pytest.mark.django_db
def test_the_built_in_types_are_there_and_known_as_such():
    registry.sync()
    built_in = SandboxType.objects.filter(built_in=True).values_list("name", flat=True)
    assert set(built_in) == {"base", "browser", "filesystem", "gui", "mobile"}


@pytest.mark.parametrize(
    ("text", "megabytes"),
    [("1g", 1024), ("512m", 512), ("1.5G", 1536), ("2GB", 2048), (1048576, 1), ("2048k", 2)],
)
def test_memory_is_read_as_docker_writes_it(text, megabytes):
    assert registry.memory_mb(text) == megabytes


@pytest.mark.parametrize(("text", "number"), [("1.0", 1.0), ("0.5", 0.5), (2, 2.0), (0.25, 0.25)])
def test_cpu_is_a_number_of_cpus(text, number):
    assert registry.cpus(text) == number


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"resource_limits": {"memory": "lots"}}, "memory must be a size such as 512m or 1g"),
        ({"resource_limits": {"cpu": "two"}}, "cpu must be a number of CPUs"),
        ({"resource_limits": {"cpu": "-1"}}, "cpu must be a number of CPUs"),
        ({"resource_limits": {"cpu": "nan"}}, "cpu must be a number of CPUs"),
        ({"resource_limits": {"disk": "1g"}}, "takes memory and cpu, not disk"),
        ({"security_level": "none"}, "must be low, medium or high"),
        ({"timeout": 0}, "timeout must be at least 1 second"),
        ({"environment": {"SECRET_TOKEN": "x"}}, "SECRET_TOKEN belongs to the platform"),
        ({"environment": {"A": 1}}, "A must be a string, not a number"),
        ({"runtime_config": ["x"]}, "runtime_config must be a mapping"),
    ],
)
def test_a_value_of_the_wrong_form_is_refused_by_name(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        register(**options)
    assert "boat" not in SandboxRegistry.definitions


@pytest.mark.parametrize("name", ["base", "Boat", "a boat", ""])
def test_a_name_that_is_taken_or_malformed_is_refused(name):
    with pytest.raises(ValueError, match="sandbox"):
        SandboxRegistry.register("acme/boat:1", name)


def test_an_extension_is_loaded_by_path(extension):
    registry.load_extension(extension("ship", limits='{"cpu": "2"}'))
    assert SandboxRegistry.definitions["ship"].cpus == 2


def test_an_extension_is_loaded_by_module(extension):
    extension("raft")
    registry.load_extension("raft")
    assert SandboxRegistry.definitions["raft"].image == "acme/raft:1"


@pytest.mark.parametrize("by", ["path", "module"])
@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("x = 1\n\nraise KeyError('sail')\n", 3, "KeyError: 'sail'"),
        ("x = 1\ndef sail(:\n", 2, "SyntaxError"),
        ("x = 1\nopen('/no/such/file')\n", 2, "FileNotFoundError"),
        ("import no_such_library\n", 1, "ModuleNotFoundError: No module named 'no_such_library'"),
        (EXTENSION, 5, "ValueError: memory must be a size"),
    ],
)
def test_an_extension_that_cannot_be_loaded_is_named_with_its_line(
    extension, by, text, line, reason
):
    file = extension("wreck", text, limits='{"memory": "lots"}')
    with pytest.raises(ExtensionError) as caught:
        registry.load_extension(file if by == "path" else "wreck")
    assert f"{file}, line {line}: {reason}" in str(caught.value)
    assert "sandbox_extension_wreck" not in sys.modules


@pytest.mark.parametrize("name", ["no_such_extension", "no/such/extension.py"])
def test_an_extension_that_is_not_there_is_named(name):
    with pytest.raises(ExtensionError, match=rf"The extension {name} cannot be loaded: \w+Error: "):
        registry.load_extension(name)


def test_what_is_not_python_is_refused(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("hello")
    with pytest.raises(ExtensionError, match=r"ImportError: not a Python file"):
        registry.load_extension(str(file))

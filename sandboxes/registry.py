"""Sandbox types from code, built in or from extensions; sync() turns them into rows."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from django.conf import settings

from sandboxes.environment import check_environment

MEGABYTE = 1024 * 1024
_UNITS = {"": 1, "b": 1, "k": 1024, "m": MEGABYTE, "g": 1024 * MEGABYTE}


class ExtensionError(Exception):
    """An extension cannot be loaded; the sentence names its file, line and reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeDefinition:
    """What code says about a sandbox type; its row may be changed in the admin later."""

    name: str
    image: str = ""
    description: str = ""
    security_level: str = "medium"
    timeout_seconds: int | None = None
    cpus: float | None = None
    memory_mb: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    runtime_config: Mapping[str, object] = field(default_factory=dict)
    runs_without_image: bool = False
    built_in: bool = False


def build_image_uri(
    image_name: str,
    tag: str | None = None,
    registry: str | None = None,
    namespace: str | None = None,
) -> str:
    """Return REGISTRY/NAMESPACE/image_name:TAG, each part from the settings unless given."""
    platform = settings.PLATFORM
    registry = platform.RUNTIME_SANDBOX_REGISTRY if registry is None else registry
    namespace = platform.RUNTIME_SANDBOX_IMAGE_NAMESPACE if namespace is None else namespace
    parts = [part.strip("/") for part in (registry.strip(), namespace, image_name) if part]
    return f"{'/'.join(parts)}:{tag or platform.RUNTIME_SANDBOX_IMAGE_TAG}"


def memory_mb(text: str | int) -> int:
    """Return MiB of a memory size such as "1g", "512m" or a number of bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([bkmg]?)b?", str(text).strip().lower())
    if match is None:
        raise ValueError(f"memory must be a size such as 512m or 1g, not {text!r}")
    return max(1, int(float(match[1]) * _UNITS[match[2]] / MEGABYTE))


def cpus(text: str | float) -> float:
    """Return a number of CPUs such as "0.5", "2" or 1.0."""
    if not re.fullmatch(r"\d+(\.\d+)?", str(text).strip()) or float(text) < 0.01:
        raise ValueError(f"cpu must be a number of CPUs such as 0.5 or 2, not {text!r}")
    return float(text)


class SandboxRegistry:
    """Collects type definitions; the decorator is that of the reference."""

    definitions: dict[str, TypeDefinition] = {}

    @classmethod
    def register(
        cls,
        image_name: str,
        sandbox_type: str,
        resource_limits: Mapping[str, str] | None = None,
        security_level: str = "medium",
        timeout: int | None = None,
        description: str = "",
        environment: Mapping[str, str] | None = None,
        runtime_config: Mapping[str, object] | None = None,
    ) -> Callable[[type], type]:
        """
        Register the decorated class's sandbox type.

        resource_limits takes memory ("1g") and cpu ("1.0"). Raise ValueError for a name that is
        registered already, an unknown limit, or a value of the wrong form.
        """
        limits = dict(resource_limits or {})
        memory, cpu = limits.pop("memory", None), limits.pop("cpu", None)
        if limits:
            raise ValueError(f"resource_limits takes memory and cpu, not {', '.join(limits)}")
        name = getattr(sandbox_type, "value", sandbox_type)
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,39}", name):
            raise ValueError(f"sandbox_type {name!r} must be lower-case letters, digits, _ and -")
        if security_level not in ("low", "medium", "high"):
            raise ValueError(f"security_level {security_level!r} must be low, medium or high")
        if name in cls.definitions:
            raise ValueError(f"the sandbox type {name!r} is registered already")
        if timeout is not None and timeout < 1:
            raise ValueError(f"timeout must be at least 1 second, not {timeout!r}")
        check_environment(environment or {})
        if not isinstance(runtime_config or {}, Mapping):
            raise ValueError(f"runtime_config must be a mapping, not {runtime_config!r}")
        definition = TypeDefinition(
            name=name,
            image=image_name,
            description=description,
            security_level=security_level,
            timeout_seconds=timeout,
            memory_mb=None if memory is None else memory_mb(memory),
            cpus=None if cpu is None else cpus(cpu),
            environment=dict(environment or {}),
            runtime_config=dict(runtime_config or {}),
        )

        def decorate(target: type) -> type:
            cls.definitions[name] = definition
            return target

        return decorate


BUILT_IN = (
    TypeDefinition(
        name="base",
        description="Python and shell",
        runs_without_image=True,
        built_in=True,
    ),
    TypeDefinition(name="filesystem", description="Python, shell and file tools", built_in=True),
    TypeDefinition(name="browser", description="A browser driven by tools", built_in=True),
    TypeDefinition(name="gui", description="A desktop driven by tools", built_in=True),
    TypeDefinition(name="mobile", description="An Android phone driven by tools", built_in=True),
)
SandboxRegistry.definitions.update({definition.name: definition for definition in BUILT_IN})


def load_extension(path_or_module: str) -> None:
    """Import a Python file or module, whose decorators register types."""
    file = Path(path_or_module)
    try:
        if file.is_file():
            _import_file(file.resolve())
        else:
            importlib.import_module(path_or_module)
    except Exception as error:  # whatever the extension raises is its author's to read
        raise ExtensionError(
            f"The extension {path_or_module} cannot be loaded: {_place_of(error, path_or_module)}"
            f"{type(error).__name__}: {error}"
        ) from error


def _import_file(file: Path) -> None:
    name = f"sandbox_extension_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file (NAME.py)")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses, among others, look their own module up.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _place_of(error: Exception, path_or_module: str) -> str:
    """Return "FILE, line N: " for where the extension's author has to look, or nothing."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}: "
    machinery = (str(Path(__file__).resolve()), importlib.__file__)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in machinery and not frame.filename.startswith("<frozen")
    ]
    file = str(Path(path_or_module).resolve())
    frames = [frame for frame in frames if frame.filename == file] or frames
    return f"{frames[-1].filename}, line {frames[-1].lineno}: " if frames else ""


def sync() -> None:
    """Write a row for each registered type that has none; rows that exist are the admin's."""
    from sandboxes.models import SandboxType

    known = set(SandboxType.objects.values_list("name", flat=True))
    SandboxType.objects.bulk_create(
        (
            SandboxType(
                name=definition.name,
                image=definition.image,
                description=definition.description,
                security_level=definition.security_level,
                timeout_seconds=definition.timeout_seconds,
                cpus=definition.cpus,
                memory_mb=definition.memory_mb,
                environment=dict(definition.environment),
                runtime_config=dict(definition.runtime_config),
                runs_without_image=definition.runs_without_image,
                built_in=definition.built_in,
            )
            for definition in SandboxRegistry.definitions.values()
            if definition.name not in known
        ),
        ignore_conflicts=True,
    )


def image_of(type_name: str, image: str) -> str:
    """Return the image of a type: its own, or the one its name implies."""
    return image or build_image_uri(f"runtime-sandbox-{type_name}")

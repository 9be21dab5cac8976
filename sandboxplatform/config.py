"""
The platform's settings, read once and loudly.

They come from the environment, from .env in the working directory (the environment wins),
or from the file of --config (the file wins), as on the reference.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dotenv import dotenv_values

from sandboxplatform.parsing import Invalid
from sandboxplatform.setting_table import BY_NAME, SETTINGS, Setting

CONFIG_VARIABLE = "SANDBOXPLATFORM_CONFIG"
"""Where manage.py leaves the path given as --config, for child processes too."""


class ConfigError(Exception):
    """A setting cannot be used; the sentence names it, its value and the fix."""


_FOREIGN = ("DJANGO_SETTINGS_MODULE", CONFIG_VARIABLE)


def is_loopback(host: str) -> bool:
    """Tell whether a listening address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def allowed_hosts(values: SimpleNamespace) -> list[str]:
    """
    Return the host names that the server answers to.

    Where no token is needed, a page of another site must not reach the server through a name
    of its own that it points at this machine (DNS rebinding).
    """
    if values.ALLOWED_HOSTS:
        return values.ALLOWED_HOSTS
    if values.BEARER_TOKEN or values.ALLOW_ANONYMOUS:
        return ["*"]
    return ["localhost", "127.0.0.1", "[::1]", values.HOST]


def _read_file(path: Path) -> dict[str, str]:
    return {name: value or "" for name, value in dotenv_values(path).items()}


def _parse(setting: Setting, raw: str, source: str) -> Any:
    shown = "…" if setting.secret else repr(raw)
    try:
        value = setting.parse(raw)
    except Invalid as error:
        raise ConfigError(
            f"{setting.name} must be {error}; it is {shown} ({source}). Change or remove it."
        ) from None
    if setting.planned and value != setting.default:
        raise ConfigError(
            f"{setting.name} is {shown} ({source}), and its feature is not available yet "
            f"({setting.meaning}). Remove it."
        )
    return value


def check(values: SimpleNamespace) -> None:
    """Raise ConfigError where settings that are fine alone cannot go together."""
    if values.WORKERS > 1 and not values.REDIS_ENABLED:
        raise ConfigError(
            f"WORKERS is {values.WORKERS}, but several workers share their look-ups through "
            f"Redis: set REDIS_ENABLED=True with REDIS_SERVER and REDIS_PORT, or WORKERS=1."
        )
    if not values.BEARER_TOKEN and not values.ALLOW_ANONYMOUS and not is_loopback(values.HOST):
        raise ConfigError(
            f"HOST is {values.HOST!r}, which other machines can reach, and BEARER_TOKEN is empty: "
            f"set BEARER_TOKEN, or ALLOW_ANONYMOUS=True to serve everyone."
        )


def load(
    environ: Mapping[str, str] | None = None,
    *,
    directory: Path | None = None,
    overrides: Mapping[str, str] | None = None,
) -> SimpleNamespace:
    """
    Return every setting as an attribute, and warnings, a list of sentences.

    overrides, from the command line, win over the environment and the file. Raise ConfigError for the first setting that cannot be used, and when the file named by
    --config is not there.
    """
    environ = os.environ if environ is None else environ
    config, dotenv = environ.get(CONFIG_VARIABLE), (directory or Path.cwd()) / ".env"
    warnings: list[str] = []
    texts: dict[str, tuple[str, str]] = {}
    if config:
        if not Path(config).is_file():
            raise ConfigError(f"--config names {config!r}, which is not a file.")
        in_file, file = _read_file(Path(config)), config
    else:
        in_file, file = (_read_file(dotenv) if dotenv.is_file() else {}), str(dotenv)
    in_environ = {name: (environ[name], "environment") for name in BY_NAME if name in environ}
    named_in_file = {name: (value, file) for name, value in in_file.items()}
    texts = {**in_environ, **named_in_file} if config else {**named_in_file, **in_environ}

    texts |= {
        name: (value, f"--{name.lower().replace('_', '-')}")
        for name, value in (overrides or {}).items()
    }
    values = SimpleNamespace()
    for setting in SETTINGS:
        raw, source = texts.get(setting.name, ("", ""))
        parsed = _parse(setting, raw.strip(), source) if raw.strip() else setting.default
        setattr(values, setting.name, parsed)
    warnings += [
        f"{name} in {file} is not a setting of this server; it is ignored."
        for name in in_file
        if name not in BY_NAME and name not in _FOREIGN
    ]
    values.warnings = warnings
    return values

#!/usr/bin/env python
"""Run a management command of the platform."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def _config_file(arguments: list[str]) -> str | None:
    """Find --config before Django reads the settings that it decides."""
    for position, argument in enumerate(arguments):
        if argument == "--config" and position + 1 < len(arguments):
            return arguments[position + 1]
        if argument.startswith("--config="):
            return argument.partition("=")[2]
    return None


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sandboxplatform.settings")
    try:
        from sandboxplatform import config
    except ModuleNotFoundError as error:
        sys.exit(
            f"{error}: this Python lacks the requirements. `make run` installs them into .venv; "
            f"use .venv/bin/python manage.py."
        )

    if file := _config_file(sys.argv[2:]):
        os.environ[config.CONFIG_VARIABLE] = str(Path(file).absolute())
    from django.core.management import execute_from_command_line

    try:
        config.load()
        execute_from_command_line(sys.argv)
    except config.ConfigError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()

"""The settings: what cannot go together, what is ignored, and what is not safe."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

from sandboxplatform import checks, config
from sandboxplatform.doctor.findings import Finding, fail, ok, warn
from sandboxplatform.doctor.subject import Subject


def look(subject: Subject) -> Iterator[Finding]:
    platform = subject.platform
    yield ok(_source())
    try:
        config.check(platform)
    except config.ConfigError as error:
        yield fail("settings that cannot go together", str(error))
    for message in checks.database_can_claim(None):
        yield fail(message.msg, message.hint)
    for sentence in platform.warnings:
        yield warn(sentence.rstrip("."), "Correct its name, or remove the line.")
    yield from _missing_mounts(platform)
    yield from _unsafe(platform)


def _source() -> str:
    if file := os.environ.get(config.CONFIG_VARIABLE):
        return f"read from {file} and the environment"
    if (file := Path.cwd() / ".env").is_file():
        return f"read from the environment and {file}"
    return f"read from the environment; there is no {file}"


def _missing_mounts(platform: SimpleNamespace) -> Iterator[Finding]:
    for source in platform.READONLY_MOUNTS or {}:
        if not Path(source).is_dir():
            yield fail(
                f"READONLY_MOUNTS names {source!r}, which is not a folder of this machine",
                "Make it, or remove it from READONLY_MOUNTS; the server does not start without it.",
            )


def _unsafe(platform: SimpleNamespace) -> Iterator[Finding]:
    if platform.DEBUG:
        yield warn(
            "DEBUG is on, which shows code and settings to whoever causes an error",
            "Set DEBUG=False where others can reach the server.",
        )
    if not platform.BEARER_TOKEN:
        yield warn(
            f"BEARER_TOKEN is empty: whoever reaches {platform.HOST} may use every sandbox",
            "Set BEARER_TOKEN to a long random text, e.g. what `openssl rand -hex 32` prints.",
        )
    if platform.WORKERS > 1 and not platform.DATABASE_URL:
        yield warn(
            f"WORKERS is {platform.WORKERS} on SQLite, which lets one process write at a time",
            "Set DATABASE_URL to a PostgreSQL database, or WORKERS=1.",
        )

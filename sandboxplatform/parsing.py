"""Turn the text of a setting into its value, or say in a sentence what it should have been."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

Parser = Callable[[str], Any]


class Invalid(ValueError):
    """The text is not a value of this setting; the message completes "NAME must be …"."""


def text(value: str) -> str:
    return value


def boolean(value: str) -> bool:
    lowered = value.strip().lower()
    if lowered in {"true", "1", "yes", "on"}:
        return True
    if lowered in {"false", "0", "no", "off"}:
        return False
    raise Invalid("True or False")


def integer(low: int, high: int | None = None) -> Parser:
    limits = f"{low} or more" if high is None else f"between {low} and {high}"

    def parse(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            raise Invalid(f"a whole number, {limits}") from None
        if number < low or (high is not None and number > high):
            raise Invalid(limits)
        return number

    return parse


def number(low: float) -> Parser:
    def parse(value: str) -> float:
        try:
            result = float(value)
        except ValueError:
            raise Invalid(f"a number, {low:g} or more") from None
        if not low <= result < float("inf"):
            raise Invalid(f"a number, {low:g} or more")
        return result

    return parse


def one_of(*choices: str) -> Parser:
    def parse(value: str) -> str:
        lowered = value.strip().lower()
        if lowered not in choices:
            raise Invalid(f"one of {', '.join(choices)}")
        return lowered

    return parse


def matching(pattern: str, words: str) -> Parser:
    def parse(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise Invalid(words)
        return value

    return parse


def names(value: str) -> list[str]:
    """Parse one name, a comma-separated list, or a JSON list of names."""
    stripped = value.strip()
    if stripped.startswith("["):
        try:
            found = json.loads(stripped)
        except json.JSONDecodeError:
            # The reference also takes [base,gui] without quotes.
            found = stripped.strip("[]").split(",")
        if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
            raise Invalid('a name, a comma-separated list or a JSON list such as ["base"]')
    else:
        found = stripped.split(",")
    cleaned = [item.strip() for item in found if item.strip()]
    if not cleaned:
        raise Invalid("at least one name")
    return cleaned


def port_range(value: str) -> tuple[int, int]:
    """Parse [low, high), a half-open range of ports."""
    try:
        low, high = (int(item) for item in value.strip().strip("[]()").split(","))
    except ValueError:
        raise Invalid("two ports such as [49152,59152]") from None
    if not 1024 <= low < high <= 65536:
        raise Invalid("two ports between 1024 and 65536, the lower one first")
    return low, high


def read_only_mounts(value: str) -> dict[str, str]:
    """Parse a JSON object from host path to container path."""
    words = 'a JSON object of paths such as {"/data/models": "/models"}'
    try:
        found = json.loads(value)
    except json.JSONDecodeError:
        raise Invalid(words) from None
    if not isinstance(found, dict):
        raise Invalid(words)
    for source, target in found.items():
        if not isinstance(target, str) or not PurePosixPath(target).is_absolute():
            raise Invalid(f"{words}; the container path of {source} is not absolute")
    return found


def database_url(value: str) -> str:
    """Parse a PostgreSQL URL; nothing else keeps the constraints that the platform rests on."""
    words = "a PostgreSQL URL such as postgres://user:password@host:5432/name"
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("postgres", "postgresql") and parts.path.strip("/")
        _ = parts.port
    except ValueError:
        raise Invalid(words) from None
    if not usable:
        raise Invalid(words)
    return value


def header_text(value: str) -> str:
    """Parse what must pass through an HTTP header unchanged."""
    if not re.fullmatch(r"[!-~]+", value):
        raise Invalid("printable ASCII characters without spaces")
    return value

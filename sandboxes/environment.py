"""What may stand in the environment of a sandbox, from code, from the admin or from a request."""

from __future__ import annotations

import re

RESERVED = frozenset({"SECRET_TOKEN", "NGINX_TIMEOUT", "WORKSPACE_DIR"})
RESERVED_PREFIX = "GUEST_"
"""What the platform tells the guest; neither a type nor a request may change it."""

# Kubernetes' rule, the strictest of the infrastructures: there is no "=" and no NUL in it.
_NAME = re.compile(r"[A-Za-z_.-][A-Za-z0-9_.-]*")


def check_environment(environment: object) -> None:
    """
    Raise ValueError, with a sentence that names the variable, for what no sandbox can be given.

    Values never stand in the sentence: they may be secrets.
    """
    if not isinstance(environment, dict):
        raise ValueError(
            f"The environment must be an object of names and strings, not {_kind(environment)}."
        )
    for name, value in environment.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} cannot be the name of an environment variable: use letters, digits, "
                f"_, - and ., and do not begin with a digit."
            )
        if name in RESERVED or name.startswith(RESERVED_PREFIX):
            raise ValueError(f"{name} belongs to the platform; leave it out of the environment.")
        if not isinstance(value, str):
            raise ValueError(
                f"The environment variable {name} must be a string, not {_kind(value)}: put its "
                f"value in quotes, or leave it out."
            )
        if "\0" in value or not _is_text(value):
            raise ValueError(
                f"The environment variable {name} holds a character that no environment can "
                f"carry (NUL or half a surrogate pair): encode the value, for example as base64."
            )


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(value: object) -> str:
    """Name a value's kind as JSON does."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string"}
    return names.get(type(value), "an object" if isinstance(value, dict) else "a list")

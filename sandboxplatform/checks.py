"""System checks: what must hold of the settings for claims and leases to be correct."""

from __future__ import annotations

from django.conf import settings
from django.core.checks import CheckMessage, Error, register


@register
def database_can_claim(app_configs: object, **kwargs: object) -> list[CheckMessage]:
    """Refuse a database on which two processes could lend the same sandbox."""
    database = settings.DATABASES["default"]
    engine = database["ENGINE"].rpartition(".")[2]
    if engine == "sqlite3":
        if database.get("OPTIONS", {}).get("transaction_mode") == "IMMEDIATE":
            return []
        return [
            Error(
                "SQLite's transactions must begin IMMEDIATE.",
                hint='Set OPTIONS["transaction_mode"] to "IMMEDIATE": Django drops FOR UPDATE '
                "on SQLite, so that two deferred transactions could claim one row.",
                id="sandboxplatform.E001",
            )
        ]
    if engine.startswith("postgres"):
        return []
    return [
        Error(
            f"The database {engine} is not supported.",
            hint="Use PostgreSQL or SQLite: MySQL has no partial unique constraints, which keep "
            "leases and sessions unique.",
            id="sandboxplatform.E002",
        )
    ]

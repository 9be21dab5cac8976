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
        return _sqlite_errors(database.get("OPTIONS", {}))
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


def _sqlite_errors(options: dict[str, object]) -> list[CheckMessage]:
    wanted = {
        'OPTIONS["transaction_mode"] to "IMMEDIATE"': options.get("transaction_mode")
        == "IMMEDIATE",
        'OPTIONS["timeout"] to 5 or more': float(options.get("timeout", 0)) >= 5,
        'OPTIONS["init_command"] to PRAGMA journal_mode=WAL': "journal_mode=wal"
        in str(options.get("init_command", "")).lower(),
    }
    return [
        Error(
            "SQLite is not set up for several processes.",
            hint=f"Set {what}: Django drops FOR UPDATE on SQLite, so that claims and leases rest "
            "on immediate transactions that wait for each other.",
            id="sandboxplatform.E001",
        )
        for what, holds in wanted.items()
        if not holds
    ]

"""The database: does it answer, is it migrated, can it be written, has it enough connections?"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator

from django.db import DatabaseError, connection, transaction
from django.db.migrations.executor import MigrationExecutor

from sandboxes.models import SandboxType
from sandboxplatform.doctor.findings import Finding, fail, ok, warn
from sandboxplatform.doctor.subject import Subject

SLOW_MS = 50
OTHER_PROCESSES = 2
"""The keeper and the reaper; the parent of the server's processes holds no connection while they run."""


def look(subject: Subject) -> Iterator[Finding]:
    try:
        connection.ensure_connection()
    except DatabaseError as error:
        yield fail(f"no connection: {error}", _way_out(subject))
        return
    try:
        if connection.vendor == "sqlite":
            yield from _sqlite()
        else:
            yield from _postgresql(subject)
        lacking = _lacking_migrations()
        if lacking:
            yield fail(
                f"{lacking} migrations are not applied",
                "Run `python manage.py migrate`; on SQLite the server does it when it starts.",
            )
        else:
            yield ok("migrated")
            yield _write()
    except DatabaseError as error:
        yield fail(str(error), _way_out(subject))


def _way_out(subject: Subject) -> str:
    if subject.platform.DATABASE_URL:
        return (
            "Check that PostgreSQL runs there, and the host, port, user, password and name in "
            "DATABASE_URL."
        )
    return (
        "The embedded database is db.sqlite3 in DATA_DIR: see that this user may write it, that "
        "its disk is not full and the file not damaged; or restore it from a backup."
    )


def _ask(question: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(question)
        return str(cursor.fetchone()[0])


def _sqlite() -> Iterator[Finding]:
    version, mode = _ask("SELECT sqlite_version()"), _ask("PRAGMA journal_mode")
    if mode == "wal":
        yield ok(f"SQLite {version}, WAL")
    else:
        yield warn(
            f"SQLite {version} writes in the mode {mode} and not in WAL, so that readers wait",
            "Set DATA_DIR to a folder on a disk of this machine: network file systems have no WAL.",
        )


def _postgresql(subject: Subject) -> Iterator[Finding]:
    version = _ask("SHOW server_version").partition(" ")[0]
    most = int(_ask("SHOW max_connections")) - int(_ask("SHOW superuser_reserved_connections"))
    processes = subject.platform.WORKERS + OTHER_PROCESSES
    wanted = processes * subject.pool_size
    if wanted > most:
        yield warn(
            f"PostgreSQL {version} has {most} connections for users, and this server may open "
            f"{wanted} ({processes} processes with {subject.pool_size} each)",
            f"Set max_connections of PostgreSQL to {wanted + 20} or more, or lower WORKERS.",
        )
    else:
        yield ok(f"PostgreSQL {version}, {wanted} of {most} connections needed at most")


def _lacking_migrations() -> int:
    executor = MigrationExecutor(connection)
    return len(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def _write() -> Finding:
    """Write a row and take it back, as a server's transactions do."""
    name = f"doctor-{secrets.token_hex(8)}"
    begun = time.monotonic()
    with transaction.atomic():
        SandboxType.objects.create(name=name, enabled=False)
        transaction.set_rollback(True)
    milliseconds = (time.monotonic() - begun) * 1000
    if SandboxType.objects.filter(name=name).exists():
        return fail(
            "a transaction that was rolled back is there nevertheless",
            "Use a database with transactions: PostgreSQL in DATABASE_URL, or SQLite.",
        )
    if milliseconds > SLOW_MS:
        return warn(
            f"a write took {milliseconds:.0f} ms",
            "Each create waits for several: look at the load of the database's machine and disk, or "
            "set DATABASE_URL to a PostgreSQL that is nearer.",
        )
    return ok(f"a write took {milliseconds:.0f} ms")

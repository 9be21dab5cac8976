"""Bring the database to what this code expects, where nobody else has to be asked."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from django.core.management import call_command
from django.db import OperationalError, connections
from django.db.migrations.executor import MigrationExecutor


class DatabaseNotReady(Exception):
    """The database cannot be used as it is; the sentence says what to do."""


def ensure_migrated() -> None:
    """
    Migrate the embedded database if it lacks migrations; raise DatabaseNotReady for another.

    The embedded SQLite file is nobody's but ours. PostgreSQL may serve several servers, and
    when it changes is for whoever runs them to say.
    """
    connection = connections["default"]
    try:
        if not _lacks_migrations():
            return
        if connection.vendor != "sqlite":
            raise DatabaseNotReady(
                "The database lacks migrations: run python manage.py migrate first."
            )
        with _alone():
            # Another process may have done it while this one waited.
            if _lacks_migrations():
                call_command("migrate", verbosity=0, interactive=False)
    except OperationalError as error:
        raise DatabaseNotReady(
            f"The database cannot be used: {error}. Check DATABASE_URL, or DATA_DIR for the "
            f"embedded one."
        ) from error


def _lacks_migrations() -> bool:
    executor = MigrationExecutor(connections["default"])
    return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))


@contextmanager
def _alone() -> Iterator[None]:
    """Wait for other processes that migrate the same folder's database."""
    with (settings.DATA_DIR / "migrate.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

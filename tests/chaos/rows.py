"""The run's database, asked through the platform's own models."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import django

from tests.server import Server


def set_up(server: Server) -> None:
    """Have this process use the server's database; before anything imports a model."""
    os.environ.update(server.settings)
    os.environ["DJANGO_SETTINGS_MODULE"] = "sandboxplatform.settings"
    from django.conf import settings

    # A pool would keep connections to a database that is killed again and again.
    settings.DATABASES["default"]["OPTIONS"].pop("pool")
    django.setup()


@contextmanager
def connected() -> Iterator[None]:
    """Ask by a fresh connection, and close it."""
    from django.db import connection

    connection.close()
    try:
        yield
    finally:
        connection.close()

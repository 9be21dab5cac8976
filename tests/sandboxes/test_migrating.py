"""A fresh clone's database is migrated by whichever command comes first."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys

import pytest
from django.db import OperationalError, connections

from sandboxes import migrating
from sandboxplatform.setting_table import BASE_DIR, BY_NAME

ENSURE = """
import django
django.setup()
from sandboxes import migrating
migrating.ensure_migrated()
"""


def test_processes_that_find_an_empty_folder_migrate_it_once(tmp_path):
    kept = {name: value for name, value in os.environ.items() if name not in BY_NAME}
    environment = {
        **kept,
        "DATA_DIR": str(tmp_path),
        "DATABASE_URL": "",
        "DJANGO_SETTINGS_MODULE": "sandboxplatform.settings",
    }
    processes = [
        subprocess.Popen([sys.executable, "-c", ENSURE], cwd=BASE_DIR, env=environment)
        for _ in range(2)
    ]
    assert [process.wait(60) for process in processes] == [0, 0]
    with sqlite3.connect(tmp_path / "db.sqlite3") as database:
        tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master")}
    database.close()
    assert {"sandboxes_imagebuild", "pools_pool"} <= tables


@pytest.mark.django_db
def test_a_database_that_is_not_ours_alone_is_left_to_its_people(monkeypatch):
    monkeypatch.setattr(migrating, "_lacks_migrations", lambda: True)
    monkeypatch.setattr(connections["default"], "vendor", "postgresql")
    with pytest.raises(migrating.DatabaseNotReady, match=r"run python manage\.py migrate first"):
        migrating.ensure_migrated()


@pytest.mark.django_db
def test_a_database_that_does_not_answer_is_said_so(monkeypatch):
    def refuse():
        raise OperationalError("connection refused")

    monkeypatch.setattr(migrating, "_lacks_migrations", refuse)
    with pytest.raises(migrating.DatabaseNotReady, match=r"connection refused.*DATABASE_URL"):
        migrating.ensure_migrated()

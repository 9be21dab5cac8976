from __future__ import annotations

from tests.acceptance.doctor.running import NOWHERE, look, run
from tests.ports import free_port


def test_missing_migrations_fail_and_what_needs_the_database_is_skipped(make_server):
    code, checks = look(make_server(), "database", "sandbox", CONTAINER_DEPLOYMENT="fake")
    assert code == 1
    assert "migrations are not applied" in checks["database"]["found"]
    assert "python manage.py migrate" in checks["database"]["fix"]
    assert checks["engine"]["found"] == "needs database, which failed"
    assert checks["sandbox"]["status"] == "skip"


def test_a_file_that_is_no_database_fails(place):
    for file in (place.folder / "data").glob("db.sqlite3*"):
        file.unlink()
    (place.folder / "data" / "db.sqlite3").write_text("no database " * 1000)
    code, checks = look(place, "database", "limits")
    assert code == 1
    assert "file is not a database" in checks["database"]["found"]
    assert "DATA_DIR" in checks["database"]["fix"]
    assert checks["limits"]["status"] in ("ok", "warn")


def test_a_database_that_is_not_there_fails_without_its_password(place):
    url = f"postgres://me:hunter22@127.0.0.1:{free_port()}/name"
    code, said, complained = run(place, DATABASE_URL=url, **NOWHERE)
    assert code == 1
    assert "FAIL  database     no connection" in said
    assert "DATABASE_URL" in said
    assert "hunter22" not in said + complained
    assert "skip  engine       needs database, which failed" in said

"""The doctor as a person or a script runs it, where one thing after the other is broken."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.acceptance.doctor.running import manage
from tests.server import Server


@pytest.fixture(scope="session")
def migrated():
    """A folder whose database is ready, as an earlier server left it."""
    with tempfile.TemporaryDirectory(prefix="sbx-") as folder:
        place = Server(Path(folder))
        process = manage(place, "migrate", "--verbosity", "0")
        said, complained = process.communicate(timeout=60)
        assert process.returncode == 0, said + complained
        yield place


@pytest.fixture
def place(migrated, make_server):
    """An installation of the test's own that was never started."""
    mine = make_server()
    shutil.copytree(migrated.folder / "data", mine.folder / "data")
    return mine

"""The doctor's checks one by one, on the fake deployer and on things that are really broken."""

from __future__ import annotations

import pytest

from sandboxes import deployment
from sandboxes.models import Installation
from sandboxplatform.doctor.subject import Subject
from tests.memory import forget_all
from tests.sandboxes.conftest import platform  # noqa: F401  a fixture that both packages share


@pytest.fixture
def subject(platform, tmp_path):  # noqa: F811  the fixture of that name
    platform.DEFAULT_MOUNT_DIR = str(tmp_path / "workspaces")
    return Subject(platform)


@pytest.fixture
def fake(platform, transactional_db):  # noqa: F811  the same
    """The deployer of this process, with its knobs."""
    platform.CONTAINER_DEPLOYMENT = "fake"
    Installation.current_id()
    forget_all()
    deployer = deployment.current()
    yield deployer
    deployer.clear()
    deployment.forget()

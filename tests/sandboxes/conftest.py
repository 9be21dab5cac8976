from __future__ import annotations

import threading

import pytest
from django.db import connections

from deployers.observation import Phase
from sandboxes import deployment, registry
from sandboxes.models import Installation
from tests.factories import let_work_behind_end, make_caller
from tests.memory import forget_all


@pytest.fixture
def platform(settings):
    """The settings of the README's table; changes are undone after the test."""
    before = dict(vars(settings.PLATFORM))
    yield settings.PLATFORM
    settings.PLATFORM.__dict__.clear()
    settings.PLATFORM.__dict__.update(before)


@pytest.fixture
def fake(platform, tmp_path):
    """The fake deployer of this process, with its knobs, and rows for the built-in types."""
    platform.CONTAINER_DEPLOYMENT = "fake"
    platform.DEFAULT_MOUNT_DIR = str(tmp_path / "workspaces")
    # Ports that the kernel gives to nobody by itself: the fake guests really listen.
    platform.PORT_RANGE = (20000, 21000)
    registry.sync()
    Installation.current_id()
    forget_all()
    deployer = deployment.current()
    yield deployer
    deployer.fail_inspect = None
    let_work_behind_end()
    for seen in list(type(deployer).inspect_all(deployer)):
        deployer.vanish(seen.name)
    deployment.forget()


@pytest.fixture
def paused(fake):
    """Return a call that tells the names of the sandboxes that are paused."""
    return lambda: {seen.name for seen in fake.inspect_all() if seen.phase is Phase.PAUSED}


@pytest.fixture
def alice():
    return make_caller("alice")


@pytest.fixture
def bob():
    return make_caller("bob")


@pytest.fixture
def in_thread():
    """Return a wrapper that closes a thread's own database connection after the call."""

    def wrap(call):
        def run(*args, **kwargs):
            try:
                return call(*args, **kwargs)
            finally:
                connections.close_all()

        return run

    return wrap


@pytest.fixture
def hanging():
    """Return a knob for a verb that does not return until the test is over, or sets its event."""
    released = threading.Event()

    def hang(name):
        released.wait(60)

    hang.released = released
    yield hang
    released.set()

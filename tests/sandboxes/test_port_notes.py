"""A port that a stranger holds is skipped and remembered, with Redis by all workers."""

from __future__ import annotations

import pytest
from django.core.cache import caches

from sandboxes import ports
from sandboxes.models import PortLease
from sandboxes.states import State
from tests.factories import make_sandbox
from tests.real_redis import redis_cli

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
def notes(request, settings, platform):
    """Where ports are noted: in this process, and in a real Redis; yields a question for them, and their prefix."""
    if request.param == "memory":
        caches["ports"].clear()
        yield (lambda: list(caches["ports"]._cache)), ""
        caches["ports"].clear()
        return
    server, _ = request.getfixturevalue("redis_server")
    port, worker = server["REDIS_PORT"], {"username": "worker", "password": "s3cret"}
    settings.CACHES = {
        **settings.CACHES,
        "ports": {
            "BACKEND": "sandboxes.shared_cache.SharedCache",
            "LOCATION": f"redis://127.0.0.1:{port}/0",
            "KEY_PREFIX": platform.REDIS_PORT_KEY,
            "OPTIONS": {"CONNECTION_POOL_KWARGS": worker},
        },
    }
    yield (lambda: redis_cli(server, "keys", "*").split()), platform.REDIS_PORT_KEY
    caches["ports"].close()


def test_a_port_that_a_stranger_holds_is_leased_to_nobody_for_a_while(platform, notes):
    notes, prefix = notes
    platform.PORT_RANGE = (50000, 50002)
    first = make_sandbox(State.STARTING)
    held = ports.lease(first)
    ports.give_to_stranger(first, held)
    assert not PortLease.objects.exists()
    assert ports.lease(first) != held
    with pytest.raises(ports.NoPortLeft, match="widen PORT_RANGE"):
        ports.lease(make_sandbox(State.STARTING))
    [note] = notes()
    assert note.endswith(f":{held}")
    assert note.startswith(prefix)

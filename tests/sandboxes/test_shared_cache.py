"""A Redis that hangs costs one call its time limit, and the event loop nothing."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import caches

from sandboxes import actions, directory, heartbeat, shared_cache
from tests.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.django_db(transaction=True)]

LIMIT = 0.5
"""Seconds that one call waits for Redis."""


@pytest.fixture
def redis(settings, platform, redis_server, monkeypatch):
    """The process of a Redis that the caches use."""
    server, process = redis_server
    shared = {
        "BACKEND": "sandboxes.shared_cache.SharedCache",
        "LOCATION": f"redis://127.0.0.1:{server['REDIS_PORT']}/0",
        "OPTIONS": {
            "SOCKET_CONNECT_TIMEOUT": LIMIT,
            "SOCKET_TIMEOUT": LIMIT,
            "CONNECTION_POOL_KWARGS": {"username": "worker", "password": "s3cret"},
        },
    }
    settings.CACHES = {"default": shared, "ports": shared | {"KEY_PREFIX": "ports"}}
    platform.REDIS_ENABLED = True
    with monkeypatch.context() as soon:
        soon.setattr(shared_cache, "PAUSE_SECONDS", 0)
        wait_until(lambda: caches["default"].set("ready", True))
    yield process
    process.send_signal(signal.SIGCONT)
    for cache in caches.all():
        cache.close()


def hang(process):
    process.send_signal(signal.SIGSTOP)


def warnings(caplog):
    found = [each for each in caplog.records if each.name == shared_cache.logger.name]
    return [record.getMessage() for record in found]


def test_the_first_failure_keeps_the_other_calls_of_every_cache_away(redis, caplog):
    caplog.clear()
    hang(redis)
    begun = time.monotonic()
    for _ in range(100):
        for name in ("default", "ports"):
            assert caches[name].get("ready", "nothing") == "nothing"
            assert caches[name].get_many(["ready"]) == {}
            assert not caches[name].set("a", 1)
            assert not caches[name].add("b", 1)
    # One call waited for its limit; all others would have needed minutes.
    assert time.monotonic() - begun < 10 * LIMIT
    [warning] = warnings(caplog)
    assert "the database is asked" in warning


def test_redis_is_used_again_when_it_is_back(redis, caplog, monkeypatch):
    monkeypatch.setattr(shared_cache, "PAUSE_SECONDS", 0.05)
    caplog.clear()
    hang(redis)
    assert caches["default"].get("ready") is None
    wait_until(lambda: caches["ports"].get("ready") is None)
    redis.send_signal(signal.SIGCONT)
    wait_until(lambda: caches["default"].get("ready"))
    assert [text.partition(",")[0] for text in warnings(caplog)] == [
        "Redis does not answer",
        "Redis answers again",
    ]


def test_a_redis_that_is_slow_is_left_alone_too(redis, monkeypatch):
    monkeypatch.setattr(shared_cache, "SLOW_SECONDS", 0)
    for _ in range(shared_cache.SLOW_IN_A_ROW):
        assert caches["default"].get("ready") is True
    assert caches["default"].get("ready") is None


def test_an_answer_that_was_slow_once_is_no_failure(redis, monkeypatch):
    for seconds in (0, 10, 0, 10, 0, 10):
        monkeypatch.setattr(shared_cache, "SLOW_SECONDS", seconds)
        assert caches["default"].get("ready") is True


def test_the_event_loop_goes_on_while_a_place_is_forgotten(fake, alice, redis):
    sandbox = actions.create(alice)

    async def longest_turn_during(waited):
        task, longest = asyncio.ensure_future(waited), 0.0
        while not task.done():
            begun = time.monotonic()
            await asyncio.sleep(0)
            longest = max(longest, time.monotonic() - begun)
        await task
        return longest

    async def run():
        place = await directory.find(alice, sandbox.name)
        hang(redis)
        begun = time.monotonic()
        longest = await longest_turn_during(heartbeat.note_use(place, 0.1))
        assert time.monotonic() - begun >= LIMIT
        assert longest < LIMIT * 0.9

    async_to_sync(run)()


def test_a_released_sandbox_is_refused_while_redis_hangs(fake, alice, redis):
    sandbox = actions.create(alice)
    directory.clear()

    async def run():
        await directory.find(alice, sandbox.name)

    async_to_sync(run)()
    hang(redis)
    actions.release(alice, sandbox.name)
    directory.clear()  # as another worker, or this one FRESH_SECONDS later
    with pytest.raises(directory.Ended):
        async_to_sync(run)()

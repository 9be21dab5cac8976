"""Whether the server can serve is asked without a token, and must not cost those who have one."""

from __future__ import annotations

import asyncio

import pytest

from sandboxes.wire.serving import QUICK_THREADS
from sandboxplatform import health
from tests.sandboxes.serving import serving

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
async def client(fake, settings, monkeypatch):
    monkeypatch.setattr(health, "_looked_at", 0.0)
    monkeypatch.setattr(health, "_failed", None)
    async with serving(settings.PLATFORM.BEARER_TOKEN) as client:
        yield client


async def ready(client):
    async with client.session.get(f"{client.url}/readyz") as answer:
        return answer.status, await answer.json()


async def begin_to_look(fake, client):
    """Ask, and return the request when it waits for the engine."""
    before = fake.calls["check"]
    first = asyncio.ensure_future(ready(client))
    async with asyncio.timeout(30):
        while fake.calls["check"] == before:
            await asyncio.sleep(0.01)
    return first


async def test_an_engine_that_hangs_costs_one_thread_however_many_ask(fake, client, hanging):
    fake.fail_check = hanging
    first = await begin_to_look(fake, client)
    async with asyncio.timeout(30):
        answers = await asyncio.gather(*(ready(client) for _ in range(2 * QUICK_THREADS)))
        assert {status for status, _ in answers} == {503}
        assert all("still being looked at" in body["detail"] for _, body in answers)
        assert await client.rpc("list_session_keys") == (200, [])
    assert not first.done()
    hanging.released.set()
    assert await first == (200, {"status": "ready"})


async def test_the_last_look_is_answered_while_the_next_goes_on(fake, client, hanging, monkeypatch):
    assert await ready(client) == (200, {"status": "ready"})
    monkeypatch.setattr(health, "FRESH_SECONDS", 0)
    fake.fail_check = hanging
    first = await begin_to_look(fake, client)
    async with asyncio.timeout(30):
        assert await ready(client) == (200, {"status": "ready"})
    hanging.released.set()
    await first

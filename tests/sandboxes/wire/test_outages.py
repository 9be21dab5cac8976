"""What a caller is told while the database or an engine is away, on the wire and by the proxy."""

from __future__ import annotations

import aiohttp
import pytest
from asgiref.sync import sync_to_async
from django.db import InterfaceError, OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper

from deployers.errors import Rejected, Unavailable
from sandboxes import actions, directory, tokens
from sandboxes.models import ApiToken
from tests.sandboxes.serving import serving
from tests.sandboxes.sessions import recycled

pytestmark = pytest.mark.django_db(transaction=True)

REQUESTS = [
    ("POST", "call_tool"),
    ("POST", "list_session_keys"),
    ("GET", "api/v1/sandboxes"),
    ("GET", "proxy/nobody/workspace/list"),
]


@pytest.fixture
async def client(fake, settings):
    async with serving(settings.PLATFORM.BEARER_TOKEN) as client:
        yield client


@pytest.fixture(params=[OperationalError, InterfaceError])
def lose_database(request, monkeypatch):
    """Return a call after which no thread reaches the database, and nothing is remembered."""

    def away(wrapper, name=None):
        raise request.param("connection refused")

    def lose():
        tokens.forget()
        directory.clear()
        monkeypatch.setattr(BaseDatabaseWrapper, "_cursor", away)

    yield lose
    monkeypatch.undo()


async def answer_of(client, method, path):
    async with client.session.request(method, f"{client.url}/{path}") as answer:
        return answer.status, answer.headers.get("Retry-After"), (await answer.json())["detail"]


@pytest.mark.parametrize(("method", "path"), REQUESTS)
async def test_a_database_that_is_away_is_a_503_with_a_detail(client, lose_database, method, path):
    lose_database()
    status, retry_after, detail = await answer_of(client, method, path)
    assert (status, retry_after) == (503, "5")
    assert "database did not answer" in detail


async def test_a_known_caller_of_the_proxy_is_told_of_the_outage_too(client, lose_database):
    name = (await sync_to_async(actions.create)(client.caller)).name
    assert (await client.proxied("GET", name, "healthz"))[0] == 200
    lose_database()
    tokens._known[ApiToken.digest_of("test-token")] = (float("inf"), client.caller)
    status, retry_after, _ = await answer_of(client, "GET", f"proxy/{name}/healthz")
    assert (status, retry_after) == (503, "5")


@pytest.mark.parametrize(
    ("error", "expected"), [(Unavailable("the engine is away"), 503), (Rejected("no"), 502)]
)
async def test_a_restoring_by_the_proxy_that_fails_says_why(fake, client, error, expected):
    old = await sync_to_async(recycled)(client.caller)
    fake.fail_start = error
    status, retry_after, detail = await answer_of(client, "GET", f"proxy/{old.name}/healthz")
    assert (status, retry_after) == (expected, "5" if expected == 503 else None)
    assert str(error) in detail


async def test_a_websocket_is_refused_with_the_same_status(fake, client):
    old = await sync_to_async(recycled)(client.caller)
    fake.fail_start = Unavailable("the engine is away")
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await client.session.ws_connect(f"{client.url}/proxy/{old.name}/socket")
    assert caught.value.status == 503

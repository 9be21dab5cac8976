"""What no database can hold is refused before one is asked."""

from __future__ import annotations

import pytest
from yarl import URL

from sandboxes.models import Sandbox
from tests.sandboxes.serving import serving

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
async def client(fake, settings):
    async with serving(settings.PLATFORM.BEARER_TOKEN) as client:
        yield client


@pytest.mark.parametrize("name", ["create", "create_from_pool"])
async def test_a_number_that_is_no_json_is_refused(client, name):
    async with client.session.post(
        f"{client.url}/{name}",
        data=b'{"meta": {"a": [1e999]}}',
        headers={"Content-Type": "application/json"},
    ) as answer:
        assert answer.status == 422
        assert "meta: It holds a number" in (await answer.json())["detail"]
    assert not await Sandbox.objects.aexists()


@pytest.mark.parametrize(
    "path", ["api/v1/sandboxes/a%00b", "api/v1/pools/a%00b", "proxy/a%00b/healthz"]
)
async def test_a_name_with_nul_is_refused(client, path):
    async with client.session.get(URL(f"{client.url}/{path}", encoded=True)) as answer:
        assert answer.status == 400
        assert "NUL" in (await answer.json())["detail"]

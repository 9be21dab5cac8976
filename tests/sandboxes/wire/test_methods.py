from __future__ import annotations

import pytest

from sandboxes import tokens
from sandboxes.wire.serving import RPC_PATHS
from tests.sandboxes.serving import serving

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("headers", [None, {"Authorization": "Bearer wrong"}], ids=["known", "no"])
async def test_a_route_that_is_sent_another_method_says_what_it_takes(fake, settings, headers):
    async with serving(settings.PLATFORM.BEARER_TOKEN) as client:
        for path in sorted(RPC_PATHS):
            for method in ("GET", "OPTIONS"):
                # A token that was looked up just now would be known without a query.
                tokens.forget()
                async with client.session.request(
                    method, client.url + path, headers=headers
                ) as answer:
                    assert (answer.status, answer.headers["Allow"]) == (405, "POST")
                    assert method in (await answer.json())["detail"]

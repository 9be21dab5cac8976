"""A guest that nobody can connect to had nothing to do, and was not too slow at it."""

from __future__ import annotations

import contextlib
import socket

import aiohttp
import pytest
from asgiref.sync import sync_to_async

from sandboxes import actions, directory, guests
from sandboxes.models import Sandbox
from tests.sandboxes.serving import serving

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def address_that_hangs():
    """An address where connections are neither accepted nor refused, as behind dropped packets."""
    with contextlib.ExitStack() as open_until_the_end:
        listener = open_until_the_end.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = open_until_the_end.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
async def client(fake, settings, monkeypatch):
    monkeypatch.setattr(guests, "CONNECT_SECONDS", 0.2)
    async with serving(settings.PLATFORM.BEARER_TOKEN) as client:
        yield client


async def test_a_connection_that_hangs_is_told_from_a_slow_answer(client, address_that_hangs):
    sandbox = await sync_to_async(actions.create)(client.caller)
    await Sandbox.objects.filter(pk=sandbox.pk).aupdate(url=address_that_hangs)
    status, detail = await client.shell(sandbox.name, "true")
    assert (status, "does not answer" in detail) == (502, True)
    url = f"{client.url}/proxy/{sandbox.name}/socket"
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await client.session.ws_connect(url)
    assert caught.value.status == 502
    assert (await Sandbox.objects.aget(pk=sandbox.pk)).first_used_at is None


async def test_a_used_sandbox_whose_connection_hangs_is_not_told_to_do_less(
    client, address_that_hangs
):
    sandbox = await sync_to_async(actions.create)(client.caller)
    assert await client.shell(sandbox.name, "echo fig") == (200, "fig\n")
    await Sandbox.objects.filter(pk=sandbox.pk).aupdate(url=address_that_hangs)
    directory.clear()
    status, detail = await client.shell(sandbox.name, "true")
    assert (status, "does not answer" in detail) == (502, True)

"""The ASGI application behind a real web server, in front of a real guest-side server."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
import pytest
import uvicorn
from aiohttp import web
from asgiref.sync import sync_to_async
from yarl import URL

from sandboxes import directory, guests, tokens
from sandboxes.models import Sandbox
from sandboxes.tokens import BEARER_USER
from tests.factories import make_sandbox, make_user

pytestmark = pytest.mark.django_db(transaction=True)


GO_ON = web.AppKey("go_on", asyncio.Event)
SOCKETS = web.AppKey("sockets", list)
CLOSED = web.AppKey("closed", list)


async def echo_request(request):
    body = await request.read()
    return web.json_response(
        {
            "method": request.method,
            "path": request.raw_path,
            "headers": {name.lower(): value for name, value in request.headers.items()},
            "body": body.decode("latin-1"),
        },
        headers={
            "Set-Cookie": "a=b",
            "X-Guest": "1",
            "Connection": "keep-alive, X-Hop",
            "X-Hop": "1",
        },
    )


async def drip(request):
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"first,")
    await request.app[GO_ON].wait()
    await response.write(b"second")
    return response


async def break_off(request):
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"x" * 10)
    request.transport.abort()
    return response


async def echo_socket(request):
    ws = web.WebSocketResponse(protocols=("binary", "chat"))
    await ws.prepare(request)
    request.app[SOCKETS].append((request.headers["Authorization"], request.query_string))
    async for message in ws:
        if message.type == aiohttp.WSMsgType.BINARY:
            await ws.send_bytes(message.data[::-1])
        elif message.data == "close":
            await ws.close(code=4001, message=b"enough")
        else:
            await ws.send_str(message.data.upper())
    request.app[CLOSED].append(ws.close_code)
    return ws


@pytest.fixture
async def guest():
    """A server that plays a sandbox's guest; yields its application and address."""
    app = web.Application(client_max_size=1 << 30)
    app.add_routes(
        [
            web.get("/fastapi/drip", drip),
            web.get("/fastapi/break", break_off),
            web.get("/fastapi/socket", echo_socket),
            web.route("*", "/fastapi/{path:.*}", echo_request),
        ]
    )
    app[GO_ON], app[SOCKETS], app[CLOSED] = asyncio.Event(), [], []
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    yield app, f"http://127.0.0.1:{port}"
    await runner.cleanup()


@pytest.fixture
async def base_url(guest):
    """Our application on a real socket, with one running sandbox called like the prefix + s."""
    directory.clear()
    tokens.forget()

    def row():
        return make_sandbox(url=guest[1], owner=make_user(BEARER_USER)).name

    name = await sync_to_async(row)()
    from sandboxplatform.asgi import application

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        config = uvicorn.Config(
            application, lifespan="off", ws="websockets-sansio", log_level="error"
        )
        server = uvicorn.Server(config)
        task = asyncio.ensure_future(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{port}/proxy/{name}"
        server.should_exit = True
        await task
    await guests.connections().close()


@pytest.fixture
async def client(settings):
    headers = {"Authorization": f"Bearer {settings.PLATFORM.BEARER_TOKEN}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        yield session


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "REPORT"])
async def test_any_method_passes_with_query_and_body(base_url, client, method):
    url = URL(f"{base_url}/a%20b/c?x=1&y=%2F", encoded=True)
    async with client.request(method, url, data=b"body") as answer:
        seen = await answer.json()
    assert (seen["method"], seen["path"]) == (method, "/fastapi/a%20b/c?x=1&y=%2F")
    assert seen["body"] == "body"


async def test_the_guest_gets_its_own_secret_and_none_of_ours(base_url, client):
    sent = {
        "Cookie": "sessionid=ours",
        "Connection": "X-Private",
        "X-Private": "1",
        "X-Kept": "yes",
        "TE": "trailers",
        "Proxy-Authorization": "Basic x",
    }
    async with client.get(f"{base_url}/headers", headers=sent) as answer:
        seen = (await answer.json())["headers"]
    sandbox = await Sandbox.objects.aget()
    assert seen["authorization"] == f"Bearer {sandbox.guest_secret}"
    assert seen["x-agentscope-runtime-session-id"] == f"s{sandbox.key}"
    assert seen["x-kept"] == "yes"
    assert not {"cookie", "x-private", "te", "proxy-authorization"} & set(seen)


async def test_the_client_gets_no_cookie_and_no_hop_by_hop_header(base_url, client):
    async with client.get(f"{base_url}/headers") as answer:
        assert answer.headers["X-Guest"] == "1"
        assert "Set-Cookie" not in answer.headers
        assert "X-Hop" not in answer.headers


async def test_what_the_guest_sends_arrives_before_it_has_ended(guest, base_url, client):
    async with client.get(f"{base_url}/drip") as answer:
        assert await answer.content.readexactly(6) == b"first,"
        guest[0][GO_ON].set()
        assert await answer.read() == b"second"


async def test_an_answer_that_breaks_off_is_broken_for_the_client_too(base_url, client):
    async with client.get(f"{base_url}/break") as answer:
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_a_sandbox_that_is_not_there_any_more_is_a_410_with_a_reason(base_url, client):
    await sync_to_async(Sandbox.objects.update)(url="http://127.0.0.1:1")
    async with client.get(f"{base_url}/x") as answer:
        assert answer.status == 410
        assert "has ended (lost)" in (await answer.json())["detail"]


async def test_websocket_frames_pass_both_ways_with_kind_protocol_and_query(
    guest, base_url, client
):
    url = f"{base_url}/socket?token=1"
    async with client.ws_connect(url, protocols=("chat",)) as ws:
        assert ws.protocol == "chat"
        await ws.send_str("hello")
        assert await ws.receive_str() == "HELLO"
        block = bytes(range(256)) * 8192
        await ws.send_bytes(block)
        assert await ws.receive_bytes() == block[::-1]
    sandbox = await Sandbox.objects.aget()
    assert guest[0][SOCKETS] == [(f"Bearer {sandbox.guest_secret}", "token=1")]


async def test_a_websocket_closed_by_the_guest_closes_with_its_code(base_url, client):
    async with client.ws_connect(f"{base_url}/socket") as ws:
        await ws.send_str("close")
        message = await ws.receive()
        assert message.type == aiohttp.WSMsgType.CLOSE
        assert ws.close_code == 4001


async def test_a_websocket_closed_by_the_client_closes_the_guests(guest, base_url, client):
    ws = await client.ws_connect(f"{base_url}/socket")
    await ws.close(code=4002)
    for _ in range(200):
        if guest[0][CLOSED]:
            break
        await asyncio.sleep(0.01)
    assert guest[0][CLOSED] == [4002]


async def test_a_websocket_needs_a_token(base_url):
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(f"{base_url}/socket")
    assert caught.value.status == 401


async def first_use():
    """Return the sandbox's row when its first use is written down."""
    async with asyncio.timeout(30):
        while (row := await Sandbox.objects.aget()).first_used_at is None:
            await asyncio.sleep(0.01)
    return row


async def test_a_websocket_is_a_use_from_its_first_moment(base_url, client):
    async with client.ws_connect(f"{base_url}/socket") as ws:
        row = await first_use()
        assert 0 < row.first_call_seconds < 30
        await ws.send_str("still open")
        assert (await ws.receive()).data == "STILL OPEN"


async def test_a_streamed_answer_is_a_use_from_its_first_moment(guest, base_url, client):
    async with client.get(f"{base_url}/drip") as answer:
        assert await answer.content.readuntil(b",") == b"first,"
        await first_use()
        guest[0][GO_ON].set()
        assert await answer.content.read() == b"second"

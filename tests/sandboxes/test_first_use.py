"""One that dies between its lending and its first use is replaced without a word."""

from __future__ import annotations

import asyncio
import threading

import aiohttp
import pytest
from asgiref.sync import sync_to_async

from deployers.errors import Unavailable
from deployers.fake.deployer import _sandboxes
from sandboxes import actions, directory, reaper
from sandboxes.binding import File
from sandboxes.models import Sandbox
from sandboxes.states import State, StopReason
from tests.factories import make_warm
from tests.sandboxes.serving import serving
from tests.sandboxes.sessions import recycle_all, recycled

pytestmark = pytest.mark.django_db(transaction=True)

FILE = (File("d/f.txt", b"precious"),)
PATH = "workspace/file?path=d/f.txt"


@pytest.fixture
async def client(fake, settings):
    async with serving(settings.PLATFORM.BEARER_TOKEN) as client:
        yield client


@pytest.fixture
async def lend(client):
    """Return a call that lends a sandbox, a warm one unless told otherwise."""

    @sync_to_async
    def lend(*, warm=True, **wish):
        if warm:
            make_warm()
        return actions.create(client.caller, **wish)

    return lend


async def row(sandbox):
    return await Sandbox.objects.select_related("replaced_by").aget(pk=sandbox.pk)


async def only_live():
    return await Sandbox.objects.exclude(state=State.STOPPED).aget()


async def used(sandbox):
    """Return when its use is written down, behind an answer that broke off."""
    async with asyncio.timeout(30):
        while (await row(sandbox)).first_used_at is None:
            await asyncio.sleep(0.01)


async def was_replaced(sandbox):
    old, new = await row(sandbox), await only_live()
    return old.replaced_by == new and old.stop_reason == StopReason.LOST


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
async def test_a_tool_call_is_answered_by_another_with_the_same_files(fake, client, lend, warm):
    sandbox = await lend(warm=warm, files=FILE, session_key="s")
    fake.kill(sandbox.name)
    assert await client.shell(sandbox.name, "echo fig") == (200, "fig\n")
    assert await was_replaced(sandbox)
    assert await client.proxied("GET", sandbox.name, PATH) == (200, b"precious")


async def test_a_proxied_request_is_answered_by_another_with_the_same_files(fake, client, lend):
    sandbox = await lend(files=FILE)
    fake.vanish(sandbox.name)
    assert await client.proxied("GET", sandbox.name, PATH) == (200, b"precious")
    assert await was_replaced(sandbox)


async def test_an_upload_reaches_the_one_in_its_place(fake, client, lend):
    sandbox = await lend()
    fake.kill(sandbox.name)
    status, _ = await client.proxied("PUT", sandbox.name, PATH, data=b"x" * 1_000_000)
    assert status == 200
    assert await client.proxied("GET", sandbox.name, PATH) == (200, b"x" * 1_000_000)


@pytest.mark.parametrize(
    ("name", "fields", "answer"),
    [
        ("check_health", {}, True),
        ("list_tools", {"tool_type": "filesystem"}, {"filesystem": {}}),
        ("add_mcp_servers", {"server_configs": {"mcpServers": {"a": {"command": "b"}}}}, "OK"),
    ],
)
async def test_other_calls_are_answered_by_another_too(fake, client, lend, name, fields, answer):
    sandbox = await lend()
    fake.kill(sandbox.name)
    assert await client.rpc(name, identity=sandbox.name, **fields) == (200, answer)
    assert await was_replaced(sandbox)


async def test_one_that_the_reaper_found_lost_is_replaced_at_its_first_call(fake, client, lend):
    sandbox = await lend(files=FILE)
    fake.kill(sandbox.name)
    assert (await sync_to_async(reaper.reap)()).lost == [sandbox.name]
    assert await client.shell(sandbox.name, "echo fig") == (200, "fig\n")
    assert await client.proxied("GET", sandbox.name, PATH) == (200, b"precious")


async def test_looking_is_no_use(fake, client, lend):
    sandbox = await lend()
    assert await client.rpc("check_health", identity=sandbox.name) == (200, True)
    assert (await client.rpc("list_tools", identity=sandbox.name))[0] == 200
    fake.kill(sandbox.name)
    assert await client.shell(sandbox.name, "echo fig") == (200, "fig\n")


async def test_one_that_was_used_is_told_lost(fake, client, lend):
    sandbox = await lend()
    assert await client.shell(sandbox.name, "echo fig") == (200, "fig\n")
    fake.kill(sandbox.name)
    for _ in range(2):
        status, detail = await client.shell(sandbox.name, "echo fig")
        assert (status, "has ended (lost)" in detail) == (410, True)
    status, body = await client.proxied("GET", sandbox.name, PATH)
    assert (status, b"has ended (lost)" in body) == (410, True)
    assert (await row(sandbox)).replaced_by is None


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
@pytest.mark.parametrize("files", [FILE, ()], ids=["files", "no files"])
@pytest.mark.parametrize("seen_by", ["call", "reaper"])
async def test_files_that_are_nowhere_else_are_not_silently_missing(
    fake, client, lend, warm, files, seen_by
):
    fake.supports_mounts = False
    sandbox = await lend(warm=warm, files=files)
    fake.kill(sandbox.name)
    if seen_by == "reaper":
        await sync_to_async(reaper.reap)()
    status, answer = await client.shell(sandbox.name, "echo fig")
    if not files:
        assert (status, answer) == (200, "fig\n")
        return
    assert (status, "has ended (lost)" in answer) == (410, True)
    row_now = await row(sandbox)
    assert (row_now.replaced_by, row_now.can_be_restored) == (None, False)
    assert not await Sandbox.objects.restorable().aexists()


async def test_one_that_was_used_through_the_proxy_is_told_lost(fake, client, lend):
    sandbox = await lend()
    assert (await client.proxied("PUT", sandbox.name, PATH, data=b"x"))[0] == 200
    fake.kill(sandbox.name)
    status, body = await client.proxied("GET", sandbox.name, PATH)
    assert (status, b"has ended (lost)" in body) == (410, True)


async def test_the_one_in_its_place_is_used_by_the_same_call(fake, client, lend):
    sandbox = await lend()
    fake.kill(sandbox.name)
    assert await client.shell(sandbox.name, "echo fig") == (200, "fig\n")
    heir = await only_live()
    assert heir.first_used_at is not None
    fake.kill(heir.name)
    status, detail = await client.shell(sandbox.name, "echo fig")
    assert (status, "has ended (lost)" in detail) == (410, True)


async def test_an_answer_that_breaks_off_was_a_use(fake, client, lend):
    sandbox = await lend()
    url = f"{client.url}/proxy/{sandbox.name}/drip?pieces=2&seconds=60"
    async with client.session.get(url) as answer:
        assert await answer.content.readline() == b"piece 0\n"
        fake.kill(sandbox.name)
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
    await used(sandbox)
    status, body = await client.proxied("GET", sandbox.name, PATH)
    assert (status, b"has ended (lost)" in body) == (410, True)


async def test_a_call_that_its_client_left_was_a_use(fake, client, lend):
    sandbox = await lend()
    async with asyncio.timeout(30):
        # The requests of its lending may not be closed yet, and are not the one to wait for.
        while calls_in(fake, sandbox):
            await asyncio.sleep(0.01)
        call = asyncio.ensure_future(client.shell(sandbox.name, "sleep 60"))
        while not calls_in(fake, sandbox):
            await asyncio.sleep(0.01)
    call.cancel()
    await used(sandbox)
    fake.kill(sandbox.name)
    assert (await client.shell(sandbox.name, "echo fig"))[0] == 410


def calls_in(fake, sandbox):
    """Count the requests that a sandbox's guest has open now."""
    return len(_sandboxes[fake.instance][sandbox.name].guest._connections)


async def test_an_engine_that_cannot_start_another_says_so_until_it_can(fake, client, lend):
    sandbox = await lend(files=FILE)
    fake.kill(sandbox.name)
    fake.fail_start = Unavailable("the engine is away")
    status, detail = await client.shell(sandbox.name, "echo fig")
    assert (status, "the engine is away" in detail) == (503, True)
    fake.fail_start = None
    assert await client.shell(sandbox.name, "echo fig") == (200, "fig\n")
    assert await client.proxied("GET", sandbox.name, PATH) == (200, b"precious")


async def test_a_recycled_one_is_restored_by_a_call_under_its_old_id(fake, client):
    old = await sync_to_async(recycled)(client.caller, files=FILE)
    assert (await client.rpc("get_info", identity=old.name))[1]["state"] == "recycled"
    assert await client.rpc("list_session_keys") == (200, ["s"])
    assert await client.shell(old.key, "echo fig") == (200, "fig\n")
    assert await client.proxied("GET", old.name, PATH) == (200, b"precious")
    new = await only_live()
    _, seen = await client.rpc("get_info", identity=old.name)
    assert (seen["state"], seen["redirect_to"]) == ("replaced", new.name)
    assert await client.rpc("get_session_mapping", session_ctx_id="s") == (200, [new.name])
    assert await client.rpc("get_status", identity=old.name) == (200, "running")


async def recycled_while_remembered(client, lend):
    """Use a sandbox, and recycle it where its worker still takes it for running; return its name."""
    sandbox = await lend(files=FILE, session_key="s")
    assert await client.shell(sandbox.name, "echo fig") == (200, "fig\n")
    place = await directory.find(client.caller, sandbox.name)
    await sync_to_async(recycle_all)()
    directory._remember(place)
    return sandbox.name


async def test_a_call_that_meets_the_recycling_restores_it(fake, client, lend):
    name = await recycled_while_remembered(client, lend)
    assert await client.shell(name, "echo fig") == (200, "fig\n")
    assert await client.proxied("GET", name, PATH) == (200, b"precious")


async def test_a_proxied_request_that_meets_the_recycling_is_told_to_come_again(fake, client, lend):
    name = await recycled_while_remembered(client, lend)
    status, answer = await client.proxied("GET", name, PATH)
    assert (status, b"the same call again reaches" in answer) == (409, True)
    assert await client.proxied("GET", name, PATH) == (200, b"precious")


async def test_a_recycled_one_is_restored_by_a_proxied_request(fake, client):
    old = await sync_to_async(recycled)(client.caller, files=FILE)
    assert await client.proxied("GET", old.name, PATH) == (200, b"precious")


async def test_a_recycled_one_is_restored_by_a_keep_alive_which_answers_the_one_that_serves(
    fake, client
):
    old = await sync_to_async(recycled)(client.caller, files=FILE)
    start, threads = fake.start, []

    def start_and_note(spec):
        threads.append(threading.current_thread().name)
        return start(spec)

    fake.start = start_and_note
    url = f"{client.url}/api/v1/sandboxes/{old.key}/keepalive"
    async with client.session.post(url, json={"lifetime_seconds": 60}) as answer:
        kept = (await answer.json())["data"]
        assert answer.status == 200
    new = await only_live()
    assert (kept["container_name"], kept["state"]) == (new.name, "running")
    assert kept["expires_at"] == new.expires_at.timestamp()
    # It takes as long as a start, and is no query for one of the quick threads.
    assert [name.startswith("slow") for name in threads] == [True]
    assert await client.proxied("GET", old.name, PATH) == (200, b"precious")


async def test_the_touch_of_another_caller_is_a_404_and_restores_nothing(fake, client, alice):
    old = await sync_to_async(recycled)(alice)
    assert (await client.shell(old.name, "echo fig"))[0] == 404
    assert (await client.proxied("GET", old.name, PATH))[0] == 404
    assert fake.calls["start"] == 1


async def test_a_guest_that_is_another_sandboxs_is_not_taken_for_its_own(client, lend):
    sandbox, other = await lend(), await lend()
    await Sandbox.objects.filter(pk=sandbox.pk).aupdate(url=other.url)
    status, detail = await client.shell(sandbox.name, "echo hello")
    assert status == 502
    assert "does not answer" in detail
    assert await client.rpc("check_health", identity=sandbox.name) == (200, False)


async def test_no_request_to_another_sandboxs_guest_is_its_callers_fault(client, lend):
    """And the right address is used as soon as it is known."""
    sandbox, other = await lend(files=FILE), await lend()
    assert await client.proxied("GET", sandbox.name, PATH) == (200, b"precious")
    row = Sandbox.objects.filter(pk=sandbox.pk)
    await row.aupdate(url=other.url)
    directory.forget(sandbox.name)
    for method, path in [("GET", PATH), ("PUT", PATH), ("GET", "healthz"), ("GET", "echo")]:
        status, body = await client.proxied(method, sandbox.name, path)
        assert (status, b"does not answer" in body) == (502, True)
    await row.aupdate(url=sandbox.url)
    assert await client.proxied("GET", sandbox.name, PATH) == (200, b"precious")


async def test_the_first_use_by_the_proxy_of_another_sandboxs_guest_is_none(client, lend):
    sandbox, other = await lend(), await lend()
    await Sandbox.objects.filter(pk=sandbox.pk).aupdate(url=other.url)
    status, body = await client.proxied("PUT", sandbox.name, PATH, data=b"x")
    assert (status, b"does not answer" in body) == (502, True)
    assert (await row(sandbox)).first_used_at is None


async def test_a_foreign_guest_with_another_secret_is_told_by_its_routes(fake, client, lend):
    sandbox, other = await lend(), await lend()
    assert await client.shell(sandbox.name, "echo fig") == (200, "fig\n")
    _sandboxes[fake.instance][other.name].guest.can_bind = False
    await Sandbox.objects.filter(pk=sandbox.pk).aupdate(url=other.url)
    directory.forget(sandbox.name)
    assert (await client.shell(sandbox.name, "echo fig"))[0] == 502
    # What it forbids elsewhere may be its own caller's fault.
    assert (await client.proxied("GET", sandbox.name, PATH))[0] == 403

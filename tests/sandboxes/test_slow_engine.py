"""An engine that takes its time keeps neither queries nor the next caller waiting."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from asgiref.sync import sync_to_async

from sandboxes import actions, directory, guests, watching
from sandboxes.models import Sandbox
from sandboxes.refusals import Ended, NotReachable
from sandboxes.states import State, StopReason
from sandboxes.threads import in_thread
from tests.factories import let_work_behind_end

pytestmark = pytest.mark.django_db(transaction=True)


async def test_queries_go_on_while_an_engine_is_asked_about_silence(fake, alice, hanging):
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    sandbox = await sync_to_async(actions.create)(alice)
    place = await directory.find(alice, sandbox.name)
    fake.fail_inspect = hanging
    asked = [asyncio.ensure_future(guests.why_unreachable(place)) for _ in range(6)]
    async with asyncio.timeout(30):
        while fake.calls["inspect"] < len(asked):
            await asyncio.sleep(0.01)
        assert await in_thread(Sandbox.objects.count) == 1
    assert not any(task.done() for task in asked)
    hanging.released.set()
    assert {type(await task) for task in asked} == {NotReachable}


def test_a_caller_does_not_wait_for_the_removal_of_what_is_lost(fake, alice, hanging):
    sandbox = actions.create(alice)
    fake.kill(sandbox.name)
    fake.fail_remove = hanging
    assert isinstance(actions.explain_silence(sandbox.name, actor="server"), Ended)
    row = Sandbox.objects.get()
    assert (row.state, row.stop_reason) == (State.STOPPING, StopReason.LOST)
    hanging.released.set()
    let_work_behind_end()
    assert Sandbox.objects.get().state == State.STOPPED


def test_the_news_of_the_next_loss_do_not_wait_for_the_removal_of_the_last(fake, alice, hanging):
    sandboxes = [actions.create(alice) for _ in range(2)]
    fake.fail_remove = hanging
    for sandbox in sandboxes:
        fake.kill(sandbox.name)
        assert watching.look_at(sandbox.name)
    assert set(Sandbox.objects.values_list("state", flat=True)) == {State.STOPPING}
    hanging.released.set()
    let_work_behind_end()
    assert set(Sandbox.objects.values_list("state", flat=True)) == {State.STOPPED}

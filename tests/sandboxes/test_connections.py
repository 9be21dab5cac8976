"""Who waits keeps no connection: more wait in a process than its pool has connections."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from sandboxes import actions, connections, deployment, room
from sandboxes.actions import claiming
from sandboxes.actions.wishes import Wish
from sandboxes.models import Sandbox
from sandboxes.refusals import NotRunning
from sandboxes.states import State
from tests.factories import let_work_behind_end, make_caller, make_sandbox, make_type, make_warm
from tests.processes import POOL_SECONDS, POOL_VARIABLE, OtherProcess
from tests.sandboxes.sessions import recycled
from tests.waiting import wait_until

POOL = 2
MANY = 6

pytestmark = pytest.mark.django_db(transaction=True)


def with_a_small_pool(call):
    with OtherProcess(call, **{POOL_VARIABLE: POOL}) as process:
        process.begin()
        return process.result()


def in_threads(call, arguments):
    """Call in a thread for each argument, as many at once; return the threads and the futures."""

    def run(argument):
        try:
            return call(argument)
        finally:
            connection.close()

    connection.close()
    threads = ThreadPoolExecutor(len(arguments))
    return threads, [threads.submit(run, argument) for argument in arguments]


@contextmanager
def held(deployer, verb):
    """Let calls of a verb wait inside; yields the names that are there."""
    inside, go_on, act = [], threading.Event(), getattr(deployer, verb)

    def wait_and_act(argument):
        inside.append(argument)
        assert go_on.wait(30)
        return act(argument)

    setattr(deployer, verb, wait_and_act)
    try:
        yield inside
    finally:
        go_on.set()
        delattr(deployer, verb)


def ask_while(verb, call, arguments):
    """Let as many as the pool has wait for the engine; return whether the database answers."""
    with held(deployment.current(), verb) as inside:
        threads, futures = in_threads(call, arguments)
        wait_until(lambda: len(inside) == POOL)
        answer = Sandbox.objects.count() == POOL
        connection.close()
    for future in futures:
        future.result(30)
    threads.shutdown()
    let_work_behind_end()
    return answer


def lend(count, **wish):
    caller = make_caller("alice")
    return caller, [actions.create(caller, **wish).name for _ in range(count)]


def ask_during_starts():
    deployment.current().needs_host_port = True
    caller = make_caller("alice")
    return ask_while("start", lambda _: actions.create(caller), range(POOL))


def ask_during_halts():
    caller, names = lend(POOL)
    return ask_while("stop", lambda name: actions.halt(caller, name), names)


def ask_during_removals():
    caller, names = lend(POOL)
    return ask_while("remove", lambda name: actions.release(caller, name), names)


def ask_during_looks():
    _, names = lend(POOL)
    return ask_while("inspect", lambda name: actions.explain_silence(name, actor="test"), names)


def ask_during_thaws():
    caller = make_caller("alice")
    for sandbox in make_warm(POOL, frozen=True):
        deployment.current().pause(sandbox.name)
    return ask_while("unpause", lambda _: actions.create(caller), range(POOL))


@pytest.mark.postgres
@pytest.mark.parametrize(
    "call",
    [
        ask_during_starts,
        ask_during_halts,
        ask_during_removals,
        ask_during_looks,
        ask_during_thaws,
    ],
)
def test_who_waits_for_an_engine_keeps_no_connection(fake, call):
    assert with_a_small_pool(call)


def restore_with_many_who_wait():
    old = recycled(make_caller("alice"))
    # Longer than anybody waits for a connection.
    deployment.current().start_delay = POOL_SECONDS + 1
    threads, futures = in_threads(
        lambda name: actions.restore(name, actor="test").name, [old.name] * MANY
    )
    names = {future.result(30) for future in futures}
    threads.shutdown()
    return len(names)


@pytest.mark.postgres
def test_those_who_wait_for_a_restoring_leave_it_its_connection(fake):
    assert with_a_small_pool(restore_with_many_who_wait) == 1


def ask_while_waiting(call, end):
    """Let as many as the pool has wait for something; return whether the database answers."""
    threads, futures = in_threads(call, range(POOL))
    wait_until(lambda: len(waiting) == POOL)
    Sandbox.objects.count()
    end()
    for future in futures:
        future.result(30)
    threads.shutdown()
    return True


waiting = set()
"""The threads that have asked once, and will ask again."""


def ask_while_others_wait_for_room():
    there_is_room = threading.Event()

    def take():
        if not Sandbox.objects.exists() and not there_is_room.is_set():
            raise LookupError

    def is_leaving():
        waiting.add(threading.get_ident())
        return True

    return ask_while_waiting(
        lambda _: room.when_there_is_room(take, LookupError, is_leaving), there_is_room.set
    )


def ask_while_others_wait_for_the_next_warm_one():
    kind, caller = make_type(), make_caller("alice")
    for _ in range(POOL):
        make_sandbox(State.STARTING, sandbox_type=kind, owner=None)

    def wait(_):
        Sandbox.objects.exists()
        waiting.add(threading.get_ident())
        deadline = time.monotonic() + 30
        return claiming.claim_next(caller, kind, Wish(), deadline=deadline)

    return ask_while_waiting(wait, Sandbox.objects.all().delete)


@pytest.mark.postgres
@pytest.mark.parametrize(
    "call", [ask_while_others_wait_for_room, ask_while_others_wait_for_the_next_warm_one]
)
def test_who_looks_again_and_again_keeps_no_connection(fake, call):
    assert with_a_small_pool(call)


def test_within_a_transaction_a_connection_is_kept():
    with transaction.atomic():
        Sandbox.objects.exists()
        connections.let_go()
        assert connection.connection is not None


def test_who_waits_for_the_restoring_of_another_writes_nothing(fake, alice, platform):
    old = recycled(alice)
    make_sandbox(State.STARTING, restores=old, session=old.session)
    platform.CREATE_TIMEOUT = 0
    with CaptureQueriesContext(connection) as asked, pytest.raises(NotRunning):
        actions.restore(old.name, actor="test")
    assert asked.captured_queries
    assert all(query["sql"].startswith("SELECT") for query in asked.captured_queries)

"""Several workers with Redis: any worker serves any sandbox, and all refuse a released one."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest

from tests.real_redis import redis_cli

pytestmark = [pytest.mark.redis, pytest.mark.bubblewrap]


def test_all_workers_serve_and_all_refuse_after_the_release(make_server, redis_server):
    settings, _ = redis_server
    server = make_server(CONTAINER_DEPLOYMENT="local", WORKERS="3", **settings).start()
    name = server.create()
    for _ in range(20):
        assert server.shell(name, "echo here") == "here\n"
    assert "place:" in redis_cli(settings, "keys", "*")
    server.rpc("release", identity=name)
    time.sleep(1.1)
    call = {"tool_name": "run_shell_command", "arguments": {"command": "true"}}
    statuses = {server.rpc("call_tool", identity=name, **call)[0] for _ in range(20)}
    assert statuses == {410}
    assert server.stop() == 0


def test_no_request_fails_when_redis_goes_away(make_server, redis_server):
    settings, process = redis_server
    server = make_server(CONTAINER_DEPLOYMENT="local", WORKERS="2", **settings).start()
    name = server.create()
    process.kill()
    process.wait()
    time.sleep(1.1)
    for _ in range(5):
        assert server.shell(name, "echo here") == "here\n"
    assert server.rpc("release", identity=name) == (200, {"data": True})
    assert server.stop() == 0


def test_a_redis_that_hangs_stalls_no_worker(make_server, redis_server):
    settings, process = redis_server
    server = make_server(CONTAINER_DEPLOYMENT="local", WORKERS="2", **settings).start()
    name, other = server.create(), server.create()
    for _ in range(10):
        assert server.shell(name, "echo here") == "here\n"
    process.send_signal(signal.SIGSTOP)
    try:
        begun = time.monotonic()
        assert server.rpc("release", identity=name) == (200, {"data": True})
        time.sleep(1.1)
        call = {"tool_name": "run_shell_command", "arguments": {"command": "true"}}
        for _ in range(20):
            assert server.shell(other, "echo here") == "here\n"
            assert server.rpc("call_tool", identity=name, **call)[0] == 410
        # Each of the two workers waits for Redis once in a few seconds, and not for each call.
        assert time.monotonic() - begun < 10
    finally:
        process.send_signal(signal.SIGCONT)
    assert server.stop() == 0


def test_all_workers_refuse_a_revoked_token(make_server, redis_server):
    settings, _ = redis_server
    server = make_server(CONTAINER_DEPLOYMENT="local", WORKERS="3", **settings).start()
    made = server.manage("createtoken", "alice")
    secret = made.split()[-1]
    ask = {"headers": {"Content-Type": "application/json"}, "token": secret}
    for _ in range(20):
        assert server.request("POST", "/list_session_keys", "{}", **ask)[0] == 200
    server.manage("shell", "-c", REVOKE)
    time.sleep(1.1)
    statuses = {server.request("POST", "/list_session_keys", "{}", **ask)[0] for _ in range(20)}
    assert statuses == {401}
    assert server.stop() == 0


REVOKE = (
    "from django.utils import timezone; from sandboxes.models import ApiToken; "
    "ApiToken.objects.update(revoked_at=timezone.now())"
)


def test_redis_is_used_again_when_it_is_back(make_server, redis_server, tmp_path):
    settings, process = redis_server
    server = make_server(CONTAINER_DEPLOYMENT="local", WORKERS="2", **settings).start()
    name = server.create()
    process.kill()
    process.wait()
    time.sleep(1.1)
    assert server.shell(name, "echo here") == "here\n"
    back = subprocess.Popen(
        ["redis-server", str(tmp_path / "redis.conf")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 30
        while "place:" not in redis_cli_quietly(settings):
            assert time.monotonic() < deadline, "nothing was written to the Redis that is back"
            assert server.shell(name, "echo here") == "here\n"
            time.sleep(0.2)
        assert server.stop() == 0
    finally:
        back.terminate()
        back.wait(10)


def redis_cli_quietly(settings):
    try:
        return redis_cli(settings, "keys", "*")
    except subprocess.CalledProcessError:
        return ""

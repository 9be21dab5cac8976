from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor


def test_stop_then_start_keeps_the_workspace(server, sandbox):
    server.shell(sandbox, "echo kept > /workspace/file")
    assert server.rpc("stop", identity=sandbox) == (200, {"data": True})
    assert server.rpc("get_status", identity=sandbox) == (200, {"data": "exited"})
    assert server.rpc("start", identity=sandbox) == (200, {"data": True})
    assert server.rpc("get_status", identity=sandbox) == (200, {"data": "running"})
    assert server.shell(sandbox, "cat /workspace/file") == "kept\n"


def test_the_whole_file_system_is_kept_where_the_deployer_can(server, sandbox):
    server.shell(sandbox, "echo kept > /tmp/file")
    server.rpc("stop", identity=sandbox)
    server.rpc("start", identity=sandbox)
    kept = server.shell(sandbox, "cat /tmp/file 2>/dev/null || echo gone")
    expected = "kept\n" if server.settings["CONTAINER_DEPLOYMENT"] == "docker" else "gone\n"
    assert kept == expected


def test_stop_and_start_twice_are_successes(server, sandbox):
    for verb in ("stop", "stop", "start", "start"):
        assert server.rpc(verb, identity=sandbox) == (200, {"data": True})


def test_a_call_on_a_stopped_sandbox_says_to_start_it(server, sandbox):
    server.rpc("stop", identity=sandbox)
    status, answer = server.rpc(
        "call_tool", identity=sandbox, tool_name="run_shell_command", arguments={"command": "true"}
    )
    assert (status, answer["detail"]) == (409, f"Sandbox {sandbox} is stopped; start it first.")
    assert server.rpc("check_health", identity=sandbox)[0] == 409


def test_a_stopped_sandbox_can_be_released(server):
    name = server.create()
    server.rpc("stop", identity=name)
    assert server.rpc("release", identity=name) == (200, {"data": True})
    assert server.rpc("start", identity=name)[0] == 410


def test_starts_and_stops_at_once_never_fail_with_a_500(server, sandbox):
    with ThreadPoolExecutor(8) as pool:
        verbs = ["stop", "start"] * 8
        statuses = set(pool.map(lambda verb: server.rpc(verb, identity=sandbox)[0], verbs))
    assert statuses <= {200, 409}
    for _ in range(100):
        if server.rpc("start", identity=sandbox)[0] == 200:
            break
        time.sleep(0.05)
    assert server.shell(sandbox, "echo alive") == "alive\n"


def test_a_stop_in_the_middle_of_calls_keeps_the_files(server, sandbox):
    server.shell(sandbox, "echo precious > file")
    stopping = threading.Event()

    def call_on():
        while not stopping.is_set():
            server.rpc(
                "call_tool",
                identity=sandbox,
                tool_name="run_shell_command",
                arguments={"command": "sleep 0.05"},
            )

    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(call_on) for _ in range(4)]
        for _ in range(3):
            time.sleep(0.2)
            assert server.rpc("stop", identity=sandbox) == (200, {"data": True})
            assert server.rpc("start", identity=sandbox) == (200, {"data": True})
        stopping.set()
        for each in calls:
            each.result()
    assert server.shell(sandbox, "cat file") == "precious\n"

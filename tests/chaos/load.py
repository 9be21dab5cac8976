"""Clients that use sandboxes as agents do, and remember what they were promised."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from itertools import count

from tests.chaos.calls import NO_ANSWER, Caller, Failed
from tests.chaos.explaining import Failure
from tests.chaos.ledger import Broken, Held
from tests.chaos.pausing import Pausing
from tests.chaos.world import IDLE_SECONDS
from tests.server import Server

MOST_HELD = 3
LEDGER = "/workspace/ledger"
PAUSE_AFTER_FAILURE = 0.5
PAUSE_AFTER_SILENCE = 1.5
"""Longer: nobody answers until a server has been started again."""


class Client(Pausing):
    """One caller with sandboxes of its own; its choices follow from the seed and its number."""

    def __init__(self, number: int, seed: int, server: Server) -> None:
        super().__init__(f"client {number}")
        self.number = number
        self.caller = Caller(server)
        self.held: list[Held] = []
        self.failures: list[Failure] = []
        self.broken: list[str] = []
        self._random = random.Random(f"{seed}-{number}")  # noqa: S311  not a secret
        self._numbers = count()

    def step(self) -> None:
        action, held = self._choose()
        try:
            action(held) if held else action()
        except Failed as failed:
            self.note(failed, held)
            silent = failed.status == NO_ANSWER
            time.sleep(PAUSE_AFTER_SILENCE if silent else PAUSE_AFTER_FAILURE)
        except Broken as broken:
            self.broken.append(str(broken))
            self.held.remove(held)

    def _choose(self) -> tuple[Callable[..., None], Held | None]:
        awake = [held for held in self.held if held.rests_until < time.monotonic()]
        if not awake or (len(self.held) < MOST_HELD and self._random.random() < 0.1):
            if len(self.held) < MOST_HELD:
                return self._random.choice([self._create, self._create, self._sdk_round]), None
            return self._look_around, None
        chosen = self._random.choice(awake)
        if chosen.halted:
            return self.resume, chosen
        actions = {
            self._write: 6,
            self.read: 5,
            self._cell: 3,
            self._upload: 2,
            self._download: 2,
            self._look: 2,
            self._rest: 2,
            self._halt_and_resume: 1,
            self._release: 2,
        }
        action = self._random.choices(list(actions), list(actions.values()))[0]
        return action, chosen

    def note(self, failed: Failed, held: Held | None) -> None:
        """Keep a failure, and let go of a sandbox that is told to be gone."""
        self.failures.append(Failure.of(failed, held))
        if held and failed.status in (404, 410) and held in self.held:
            self.held.remove(held)

    def _token(self) -> str:
        return f"{self.number}-{next(self._numbers)}"

    def _create(self) -> None:
        token = self._token()
        session = f"session-{token}" if self._random.random() < 0.6 else ""
        environment = token if self._random.random() < 0.4 else ""
        fields: dict[str, object] = {"meta": {"session_ctx_id": session}} if session else {}
        if environment:
            fields["environment"] = {"CHAOS": environment}
        name = self.caller.rpc("create", "create" if environment else "create_from_pool", **fields)
        if name is None:
            raise Broken("a create was answered with null, and there is no cap")
        self.held.append(Held(name, session, environment))

    def _write(self, held: Held) -> None:
        line = self._token()
        held.perhaps.add(line)
        command = f"echo {line} >> {LEDGER}; echo ${{CHAOS:-none}}"
        said = self.caller.tool("shell", held.name, "run_shell_command", command=command)
        held.perhaps.discard(line)
        held.written.append(line)
        if said.strip() != (held.environment or "none"):
            raise Broken(f"{held.name} has {said!r} in its environment, not {held.environment!r}")

    def read(self, held: Held) -> None:
        command = f"touch {LEDGER}; cat {LEDGER}"
        held.compare(self.caller.tool("shell", held.name, "run_shell_command", command=command))

    def _cell(self, held: Held) -> None:
        said = self.caller.tool("cell", held.name, "run_ipython_cell", code="print(6 * 7)")
        if "42" not in said:
            raise Broken(f"{held.name} says that 6 * 7 is {said!r}")

    def _upload(self, held: Held) -> None:
        path, body = f"file-{self._token()}", self._random.randbytes(20_000)
        self.caller.upload("upload", held.name, path, body)
        held.files[path] = body

    def _download(self, held: Held) -> None:
        if not held.files:
            return
        path = self._random.choice(list(held.files))
        if self.caller.download("download", held.name, path) != held.files[path]:
            raise Broken(f"{held.name} has other bytes in {path} than were put there")

    def _look(self, held: Held) -> None:
        route = self._random.choice(["get_info", "get_status", "check_health", "list_tools"])
        answer = self.caller.rpc(route, route, held.name)
        states = ("running", "recycled", "replaced")
        if route == "get_info" and answer["state"] not in states:
            # The next call says why; what it then gets must be explained.
            self.read(held)

    def _look_around(self) -> None:
        keys = self.caller.rpc("list_session_keys", "list_session_keys")
        # Resting ones are in the list too: they are only recycled.
        missing = [one.name for one in self.held if one.session and one.session not in keys]
        for held in [one for one in self.held if one.name in missing]:
            self.read(held)
        time.sleep(0.1)

    def _rest(self, held: Held) -> None:
        """Leave it alone for so long that it is recycled, if it has a session."""
        held.rests_until = time.monotonic() + IDLE_SECONDS * self._random.uniform(0.5, 2)

    def _halt_and_resume(self, held: Held) -> None:
        held.halted = True
        self.caller.rpc("stop", "stop", held.name)
        self.resume(held)

    def resume(self, held: Held) -> None:
        self.caller.rpc("start", "start", held.name)
        held.halted = False

    def _release(self, held: Held) -> None:
        held.perhaps_released = True
        self.caller.rpc("release", "release", held.name)
        self.held.remove(held)

    def _sdk_round(self) -> None:
        """Use a sandbox the way the published SDK does, from its making to its release."""
        session = {"session_ctx_id": f"sdk-{self._token()}"}
        name = self.caller.sdk("sdk create", "", "create_from_pool", "base", session)
        held = Held(name, session["session_ctx_id"])
        self.held.append(held)
        call = {"command": f"echo sdk > {LEDGER}; cat {LEDGER}"}
        held.perhaps.add("sdk")
        result = self.caller.sdk("sdk call", name, "call_tool", name, "run_shell_command", call)
        if result["content"][0]["text"] != "sdk\n":
            raise Failed("sdk call", name, 200, str(result), time.monotonic() - 1, time.monotonic())
        self.caller.sdk("sdk write", name, "fs_write", name, "sdk", "from the sdk")
        held.files["sdk"] = b"from the sdk"
        held.perhaps_released = True
        self.caller.sdk("sdk release", name, "release", name)
        self.held.remove(held)

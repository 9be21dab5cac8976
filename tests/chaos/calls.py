"""How a client calls, and what it keeps of a call that failed."""

from __future__ import annotations

import http.client
import json
import re
import time
from collections import Counter
from dataclasses import dataclass

import requests
from agentscope_runtime.sandbox.manager import SandboxManager

from tests.server import TOKEN, Server

NO_ANSWER = 0
"""Stands for the status of a call that got none."""


@dataclass(frozen=True)
class Failed(Exception):
    """A call that failed, with all that a client was told; times are time.monotonic() values."""

    operation: str
    sandbox: str
    status: int
    detail: str
    since: float
    until: float

    def __str__(self) -> str:
        took = self.until - self.since
        said = self.status or "no answer"
        return f"{self.operation} {self.sandbox} ({took:.1f} s): {said}: {self.detail[:400]}"


class Caller:
    """Calls one server, by plain RPC and by the published SDK, and counts what it did."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.done: Counter[str] = Counter()

    def rpc(self, operation: str, route: str, sandbox: str = "", **fields: object) -> object:
        """Make one RPC; return its data. Raise Failed for anything but a success."""
        if sandbox:
            fields["identity"] = sandbox
        return self._timed(operation, sandbox, lambda: self._server.rpc(route, **fields))

    def tool(self, operation: str, sandbox: str, tool: str, **arguments: str) -> str:
        """Call a tool; return what it wrote. A result that is an error is Failed too."""
        since = time.monotonic()
        fields = {"tool_name": tool, "arguments": arguments}
        result = self.rpc(operation, "call_tool", sandbox, **fields)
        text = "".join(
            part["text"] for part in result["content"] if part["description"] != "returncode"
        )
        if result["isError"]:
            self.done[operation] -= 1
            raise Failed(operation, sandbox, 200, text, since, time.monotonic())
        return text

    def upload(self, operation: str, sandbox: str, path: str, body: bytes) -> None:
        def put() -> tuple[int, object]:
            place = f"/proxy/{sandbox}/workspace/file?path={path}"
            status, _, answer = self._server.request("PUT", place, body)
            return status, json.loads(answer)

        self._timed(operation, sandbox, put)

    def download(self, operation: str, sandbox: str, path: str) -> bytes:
        def get() -> tuple[int, object]:
            place = f"/proxy/{sandbox}/workspace/file?path={path}&format=bytes"
            status, _, answer = self._server.request("GET", place)
            return status, {"data": answer} if status == 200 else json.loads(answer)

        return self._timed(operation, sandbox, get)

    def sdk(self, operation: str, sandbox: str, method: str, *arguments: object) -> object:
        """Call a method of the SDK's manager, which tells errors in a string."""

        def call() -> tuple[int, object]:
            manager = SandboxManager(base_url=self._server.url, bearer_token=TOKEN)
            try:
                answer = getattr(manager, method)(*arguments)
            except requests.RequestException as error:
                if error.response is None:
                    raise
                return error.response.status_code, {"detail": error.response.text}
            finally:
                manager.http_session.close()
            if isinstance(answer, str) and answer.startswith("Error: HTTP"):
                return int(re.search(r"HTTP (\d+)", answer)[1]), {"detail": answer}
            return 200, {"data": answer}

        return self._timed(operation, sandbox, call)

    def _timed(self, operation: str, sandbox: str, call: object) -> object:
        since = time.monotonic()
        try:
            status, answer = call()
        except (OSError, http.client.HTTPException, ValueError) as error:
            said = f"{type(error).__name__}: {error}"
            raise Failed(operation, sandbox, NO_ANSWER, said, since, time.monotonic()) from error
        if status != 200:
            detail = str(answer.get("detail", answer))
            raise Failed(operation, sandbox, status, detail, since, time.monotonic())
        self.done[operation] += 1
        return answer.get("data")

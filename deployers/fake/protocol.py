"""
The guest protocol, played in memory.

A cell is a command of the fake shell, or any other text, which is its own output. Beyond the
protocol, to look at a proxy from behind:

ANY /fastapi/echo…                        method, path, query, headers, body_length, body_sha256
GET /fastapi/drip?pieces=3&seconds=0.1    a chunked answer, piece by piece
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from deployers.fake import shell
from deployers.fake.exchange import Exchange
from deployers.fake.files import entry, key

if TYPE_CHECKING:
    from deployers.fake.guest import FakeGuest

RESERVED = ("SECRET_TOKEN", "NGINX_TIMEOUT", "WORKSPACE_DIR")


class Handler(Exchange):
    server: FakeGuest

    def answer(self) -> None:
        parts = urlsplit(self.path)
        self.query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        path = parts.path.removeprefix("/fastapi/")
        if path.startswith("/v1/"):
            path = path[1:]
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given, self.server.env.get("SECRET_TOKEN", "")):
            # The body stays unread, so nothing further can be read from this connection.
            self.close_connection = True
            # An older guest does not say what it forbids.
            reason = {"x-guest-refusal": "secret"} if self.server.can_bind else {}
            return self.reply(403, {"detail": "Invalid token"}, headers=reason)
        if path.startswith("echo"):
            return self.echo(parts.path, parts.query)
        name = f"{self.command.lower()}_{path.replace('/', '_').replace(':', '_')}"
        method = getattr(self, name, None)
        if method is None:
            self.close_connection = True
            return self.reply(404, {"detail": f"The fake guest has no {self.command} {path}."})
        return method()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer  # noqa: N815

    def get_healthz(self) -> None:
        late = time.monotonic() < self.server.healthy_at
        self.reply(503 if late else self.server.status, b"starting" if late else b"OK")

    def get_v1_capabilities(self) -> None:
        features = ["bind"] * self.server.can_bind + ["ipython", "mcp", "shell", "workspace"]
        self.reply(200, {"guest": "sandboxplatform", "protocol": 1, "features": features})

    def post_v1_bind(self) -> None:
        body = self.body_json()
        if not self.server.can_bind:
            return self.reply(404, {"detail": "This guest has no POST /v1/bind."})
        environment, files = body.get("environment") or {}, body.get("files") or []
        for name, value in environment.items():
            if name in RESERVED or name.startswith("GUEST_") or not isinstance(value, str):
                detail = f"Field 'environment.{name}' is reserved, or no string."
                return self.reply(422, {"detail": detail})
        try:
            contents = {
                key(file["path"]): base64.b64decode(file["content"], validate=True)
                for file in files
            }
        except binascii.Error:
            return self.reply(422, {"detail": "Field 'files' has content that is not base64."})
        if outside := [path for path in contents if ".." in PurePosixPath(path).parts]:
            return self.reply(403, {"detail": f"{outside[0]} leads outside the workspace."})
        with self.server.binding:
            wanted = {"environment": environment, "files": files} if environment or files else None
            if wanted and self.server.bound not in (None, wanted):
                detail = "This sandbox is bound already, to other content; take a fresh one."
                return self.reply(409, {"detail": detail})
            if wanted and self.server.bound is None:
                self.server.env.update(environment)
                for path, content in contents.items():
                    self.server.files.write(path, content)
                self.server.bound = wanted
        return self.reply(200, {"bound": True})

    def post_tools_run_shell_command(self) -> None:
        stdout, stderr, code = self.play(self.body_json()["command"])
        parts = [("stdout", stdout), ("returncode", str(code))]
        if stderr:
            parts.insert(1, ("stderr", stderr))
        self.reply(200, result(parts, is_error=code != 0))

    def post_tools_run_ipython_cell(self) -> None:
        code_text = self.body_json()["code"]
        stdout, stderr, code = self.play(code_text)
        if code == 127:
            stdout, stderr, code = f"{code_text}\n", "", 0
        parts = [("stdout", stdout)] + ([("stderr", stderr)] if stderr else [])
        self.reply(200, result(parts, is_error=code != 0))

    def post_mcp_add_servers(self) -> None:
        self.body_json()
        self.reply(200, "OK")

    def get_mcp_list_tools(self) -> None:
        self.reply(200, {})

    def post_mcp_call_tool(self) -> None:
        tool = self.body_json().get("tool_name")
        self.reply(200, result([("", f"The fake guest has no tool {tool}.")], is_error=True))

    def get_workspace_file(self) -> None:
        content = self.server.files.read(self.query["path"])
        if content is None:
            return self.reply(404, {"detail": f"{self.query['path']} does not exist."})
        return self.reply(200, content, kind="application/octet-stream")

    def put_workspace_file(self) -> None:
        path, content = self.query["path"], b"".join(self.body())
        self.server.files.write(path, content)
        self.reply(200, entry(path, len(content)))

    def get_workspace_exists(self) -> None:
        self.reply(200, {"exists": self.server.files.read(self.query["path"]) is not None})

    def get_workspace_list(self) -> None:
        files = self.server.files
        self.reply(200, [entry(name, len(files.read(name) or b"")) for name in files.names()])

    def delete_workspace_entry(self) -> None:
        self.server.files.remove(self.query["path"])
        self.reply(204, b"")

    def echo(self, path: str, query: str) -> None:
        length, digest = 0, hashlib.sha256()
        for piece in self.body():
            length += len(piece)
            digest.update(piece)
        seen = {
            "method": self.command,
            "path": path,
            "query": query,
            "headers": dict(self.headers),
            "body_length": length,
            "body_sha256": digest.hexdigest(),
        }
        self.reply(200, seen)

    def get_drip(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(int(self.query.get("pieces", 3))):
            piece = f"piece {number}\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.server.ended.wait(float(self.query.get("seconds", 0.1)))
        self.wfile.write(b"0\r\n\r\n")

    def play(self, command: str) -> tuple[str, str, int]:
        return shell.play(command, env=self.server.env, sleep=self.server.ended.wait)


def result(parts: list[tuple[str, str]], *, is_error: bool) -> dict[str, object]:
    """Return a tool result of the wire, from (description, text) pairs."""
    content = [
        {"type": "text", "text": text, "annotations": None, "description": description or None}
        for description, text in parts
    ]
    return {"meta": None, "content": content, "isError": is_error}

"""
A guest that plays its part: the guest protocol over HTTP, in memory, and nothing is executed.

A command is a sequence of these, joined by ; or &&: `echo TEXT`, `sleep SECONDS`, `exit CODE`,
`printenv NAME`, `fail TEXT` (TEXT on stderr, code 1). A cell is the same or any other text,
which is its own output. With can_bind=False it is an older guest, which has no POST /v1/bind.
Beyond the protocol, to look at a proxy from behind:

ANY /fastapi/echo…                        method, path, query, headers, body_length, body_sha256
GET /fastapi/drip?pieces=3&seconds=0.1    a chunked answer, piece by piece
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import json
import shlex
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, urlsplit

PIECE = 64 * 1024
RESERVED = ("SECRET_TOKEN", "NGINX_TIMEOUT", "WORKSPACE_DIR")


class FakeGuest(ThreadingHTTPServer):
    """Listens on 127.0.0.1 from its creation until close(), which also cuts open connections."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        *,
        env: Mapping[str, str],
        files: dict[str, bytes],
        workspace: Path | None = None,
        port: int = 0,
        delay: float = 0,
        status: int = 200,
        can_bind: bool = True,
    ) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.env = dict(env)
        self.can_bind = can_bind
        self.bound: dict[str, object] | None = None
        self.binding = threading.Lock()
        self.files = files
        self.workspace = workspace
        self.status = status
        self.healthy_at = time.monotonic() + delay
        self.ended = threading.Event()
        self._connections: set[socket.socket] = set()
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self._accept, name=f"guest {self.server_port}", daemon=True).start()

    def _accept(self) -> None:
        # Not serve_forever(), which looks up twice a second to see whether it should end.
        while not self.ended.is_set():
            try:
                connection, address = self.socket.accept()
            except OSError:
                break
            self._connections.add(connection)
            self.process_request(connection, address)
        self.server_close()

    def shutdown_request(self, request: socket.socket) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, *_) -> None:
        """A caller that went away is no news."""

    def close(self) -> None:
        # Before the calls that wait are woken, or they would still answer.
        for connection in [self.socket, *self._connections]:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.ended.set()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
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

    # The protocol.

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
                self.key(file["path"]): base64.b64decode(file["content"], validate=True)
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
                    self.write(path, content)
                self.server.bound = wanted
        return self.reply(200, {"bound": True})

    def post_tools_run_shell_command(self) -> None:
        stdout, stderr, code = self.run(self.body_json()["command"])
        parts = [("stdout", stdout), ("returncode", str(code))]
        if stderr:
            parts.insert(1, ("stderr", stderr))
        self.reply(200, result(parts, is_error=code != 0))

    def post_tools_run_ipython_cell(self) -> None:
        code_text = self.body_json()["code"]
        stdout, stderr, code = self.run(code_text)
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
        content = self.read(self.query["path"])
        if content is None:
            return self.reply(404, {"detail": f"{self.query['path']} does not exist."})
        return self.reply(200, content, kind="application/octet-stream")

    def put_workspace_file(self) -> None:
        path, content = self.query["path"], b"".join(self.body())
        self.write(path, content)
        self.reply(200, self.entry(path, len(content)))

    def get_workspace_exists(self) -> None:
        self.reply(200, {"exists": self.read(self.query["path"]) is not None})

    def get_workspace_list(self) -> None:
        if self.server.workspace is None:
            names = sorted(self.server.files)
        else:
            found = self.server.workspace.rglob("*")
            names = sorted(str(one.relative_to(self.server.workspace)) for one in found)
        self.reply(200, [self.entry(name, len(self.read(name) or b"")) for name in names])

    def delete_workspace_entry(self) -> None:
        key = self.key(self.query["path"])
        self.server.files.pop(key, None)
        if self.server.workspace is not None:
            (self.server.workspace / key).unlink(missing_ok=True)
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

    # Its parts.

    def run(self, command: str) -> tuple[str, str, int]:
        stdout, stderr, code = "", "", 0
        for step in command.replace("&&", ";").split(";"):
            words = step.split(maxsplit=1)
            name, rest = [*words, "", ""][:2]
            with contextlib.suppress(ValueError):
                rest = " ".join(shlex.split(rest))
            if name == "echo":
                stdout += f"{rest}\n"
            elif name == "sleep":
                self.server.ended.wait(float(rest))
            elif name == "exit":
                return stdout, stderr, int(rest or 0)
            elif name == "printenv":
                value = self.server.env.get(rest)
                stdout, code = stdout + (f"{value}\n" if value else ""), int(value is None)
            elif name == "fail":
                return stdout, f"{rest}\n", 1
            elif name:
                return stdout, stderr + f"sh: {name}: not found\n", 127
        return stdout, stderr, code

    def key(self, path: str) -> str:
        return str(PurePosixPath(path)).removeprefix("/workspace").lstrip("/")

    def read(self, path: str) -> bytes | None:
        if self.server.workspace is None:
            return self.server.files.get(self.key(path))
        target = self.server.workspace / self.key(path)
        return target.read_bytes() if target.is_file() else None

    def write(self, path: str, content: bytes) -> None:
        if self.server.workspace is None:
            self.server.files[self.key(path)] = content
        else:
            target = self.server.workspace / self.key(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)

    def entry(self, path: str, size: int) -> dict[str, object]:
        key = self.key(path)
        now = int(time.time() * 1000)
        return {"path": key, "name": Path(key).name, "type": "file", "size": size, "mtime_ms": now}

    def body(self) -> Iterator[bytes]:
        """Yield the body piece by piece, of a known length or chunked."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length", 0))
        while left and (piece := self.rfile.read(min(left, PIECE))):
            left -= len(piece)
            yield piece

    def body_json(self) -> dict[str, object]:
        return json.loads(b"".join(self.body()) or b"{}")

    def reply(
        self,
        status: int,
        answer: object,
        *,
        kind: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            for start in range(0, len(content), PIECE):
                self.wfile.write(content[start : start + PIECE])

    def log_message(self, *_) -> None:
        """The caller's log says enough."""


def result(parts: list[tuple[str, str]], *, is_error: bool) -> dict[str, object]:
    """Return a tool result of the wire, from (description, text) pairs."""
    content = [
        {"type": "text", "text": text, "annotations": None, "description": description or None}
        for description, text in parts
    ]
    return {"meta": None, "content": content, "isError": is_error}

"""A registry that offers one image: enough of Docker's registry protocol, version 2, to pull."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import secrets
import tarfile
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _layer(megabytes: int) -> tuple[bytes, str]:
    """Return a layer with one file nobody has seen before, and the digest of its tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("blob")
        member.size = megabytes << 20
        archive.addfile(member, io.BytesIO(secrets.token_bytes(member.size)))
    return gzip.compress(buffer.getvalue(), 0), _digest(buffer.getvalue())


class Registry:
    """Serve `repository`:latest on 127.0.0.1; requests counts what was asked for."""

    def __init__(self, repository: str, *, megabytes: int = 1, seconds: float = 0) -> None:
        layer, diff_id = _layer(megabytes)
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Cmd": ["/blob"]},
                "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            }
        ).encode()
        kind = "application/vnd.docker.distribution.manifest.v2+json"
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": kind,
                "config": {
                    "mediaType": "application/vnd.docker.container.image.v1+json",
                    "size": len(config),
                    "digest": _digest(config),
                },
                "layers": [
                    {
                        "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                        "size": len(layer),
                        "digest": _digest(layer),
                    }
                ],
            }
        ).encode()
        self.requests: Counter[str] = Counter()
        self.layer_path = f"/v2/{repository}/blobs/{_digest(layer)}"
        answers = {
            "/v2/": ("application/json", b"{}"),
            f"/v2/{repository}/manifests/latest": (kind, manifest),
            f"/v2/{repository}/manifests/{_digest(manifest)}": (kind, manifest),
            f"/v2/{repository}/blobs/{_digest(config)}": ("application/octet-stream", config),
            self.layer_path: ("application/octet-stream", layer),
        }
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler(answers, seconds))
        self.reference = f"127.0.0.1:{self._server.server_port}/{repository}:latest"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self, answers, seconds: float) -> type[BaseHTTPRequestHandler]:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:  # named by http.server
                registry.requests[self.path] += self.command == "GET"
                error = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
                kind, body = answers.get(
                    self.path, ("application/json", json.dumps(error).encode())
                )
                self.send_response(200 if self.path in answers else 404)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Docker-Content-Digest", _digest(body))
                self.end_headers()
                if self.command == "HEAD":
                    return
                pieces = 10 if self.path == registry.layer_path and seconds else 1
                size = -(-len(body) // pieces)
                for start in range(0, len(body), size):
                    self.wfile.write(body[start : start + size])
                    time.sleep(seconds / pieces if pieces > 1 else 0)

            do_HEAD = do_GET  # noqa: N815  # named by http.server

            def log_message(self, *_) -> None:
                """Stay silent."""

        return Handler

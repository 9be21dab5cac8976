"""Requests to a guest, as a caller sends them."""

from __future__ import annotations

import http.client
import socket
import urllib.parse

TOKEN = "contract-secret-token"


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def fetch(
    url: str,
    path: str,
    *,
    method: str = "GET",
    body: bytes | None = None,
    token: str = TOKEN,
    timeout: float = 5,
) -> tuple[int, dict[str, str], bytes]:
    """Send one request to a guest; return status, headers (names in lower case) and body."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "http+unix":
        connection = UnixConnection(urllib.parse.unquote(parts.netloc), timeout)
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
    try:
        headers = {"Authorization": f"Bearer {token}"}
        connection.request(method, parts.path.rstrip("/") + path, body=body, headers=headers)
        answer = connection.getresponse()
        names = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, names, answer.read()
    finally:
        connection.close()


def guest_answers(url: str) -> bool:
    try:
        return fetch(url, "/fastapi/healthz", timeout=1)[0] == 200
    except (OSError, http.client.HTTPException):
        return False

"""What the tests of binding a guest share."""

from __future__ import annotations

import base64

VALUE = "s3cret-of-the-caller"
BOUND = {"bound": True}


def bind(guest, environment=None, files=()):
    return guest.http.post("/v1/bind", json={"environment": environment or {}, "files": files})


def file(path, content=b"", **more):
    return {"path": path, "content": base64.b64encode(content).decode(), **more}

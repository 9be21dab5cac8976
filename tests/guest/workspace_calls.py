"""Calls of a guest's workspace, shared by the tests of its files."""

from __future__ import annotations

FILE = "/fastapi/workspace/file"


class Workspace:
    """The workspace's endpoints of a guest, shortly."""

    def __init__(self, guest):
        self.guest = guest
        self.root = guest.workspace

    def read(self, path, **more):
        return self.guest.http.get(FILE, params={"path": str(path), "format": "bytes", **more})

    def write(self, path, content=b"new"):
        return self.guest.http.put(FILE, params={"path": str(path)}, content=content)

    def get(self, name, path, **more):
        return self.guest.http.get(f"/fastapi/workspace/{name}", params={"path": str(path), **more})

    def remove(self, path):
        return self.guest.http.delete("/fastapi/workspace/entry", params={"path": str(path)})

    def move(self, source, destination):
        return self.guest.post("workspace/move", source=str(source), destination=str(destination))

    def mkdir(self, path):
        return self.guest.post("workspace/mkdir", path=str(path))


def detail(answer):
    return answer.json()["detail"]

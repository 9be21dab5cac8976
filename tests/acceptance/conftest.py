from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.server import Server

DEPLOYERS = [
    pytest.param("local", marks=pytest.mark.bubblewrap),
    pytest.param("docker", marks=pytest.mark.base_image),
]


@pytest.fixture
def make_server():
    """Return a function that makes servers; what they leave is removed at the end."""
    servers = []

    with tempfile.TemporaryDirectory(prefix="sbx-") as folder:

        def make(*options, **settings):
            place = Path(folder) / str(len(servers))
            place.mkdir()
            servers.append(Server(place, *options, **settings))
            return servers[-1]

        yield make
        for server in servers:
            if server.process is None:
                continue
            if server.process.poll() is None:
                server.process.kill()
                server.process.wait()
            # A last start with AUTO_CLEANUP removes whatever a test left on purpose.
            if server.settings.get("CONTAINER_DEPLOYMENT") and (server.folder / "data").exists():
                server.settings["AUTO_CLEANUP"] = "True"
                server.options = ()
                try:
                    server.start().stop()
                except AssertionError:
                    continue


@pytest.fixture(scope="module", params=DEPLOYERS)
def server(request):
    """One server for a whole file of tests, on each deployer."""
    with tempfile.TemporaryDirectory(prefix="sbx-") as folder:
        running = Server(Path(folder), CONTAINER_DEPLOYMENT=request.param).start()
        yield running
        assert running.stop() == 0, running.output


@pytest.fixture
def sandbox(server):
    """A sandbox of the file's server, released at the end."""
    name = server.create()
    yield name
    assert server.rpc("release", identity=name) == (200, {"data": True})

from __future__ import annotations

import socket
import socketserver
from contextlib import contextmanager, suppress
from threading import Event, Semaphore, Thread

import pytest

from deployers.docker import DockerDeployer
from deployers.docker.engine import DEFAULT_ADDRESS
from deployers.docker.watching import Events
from deployers.errors import Unavailable
from deployers.observation import Phase
from tests.deployers.docker_steps import DockerSteps
from tests.waiting import eventually

pytestmark = pytest.mark.docker


@contextmanager
def gateway(address):
    """Stand between a client and the engine's socket; the value cuts what is connected."""
    ends = []

    class Forward(socketserver.BaseRequestHandler):
        def handle(self):
            with socket.socket(socket.AF_UNIX) as engine:
                engine.connect(DEFAULT_ADDRESS.removeprefix("unix://"))
                ends.extend([self.request, engine])
                back = Thread(target=pour, args=(engine, self.request))
                back.start()
                pour(self.request, engine)
                back.join()

    def cut():
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    with socketserver.ThreadingUnixStreamServer(address, Forward) as server:
        Thread(target=server.serve_forever, args=(0.05,)).start()
        try:
            yield cut
        finally:
            cut()
            server.shutdown()


def pour(source, target):
    with suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)


class TestWatch(DockerSteps):
    def test_what_ends_between_two_watches_is_told(self, deployer, make_spec):
        spec = make_spec()
        self.start(deployer, spec)
        deployer.watch(Event()).close()
        self.let_die(deployer, spec.name)
        assert eventually(lambda: deployer.inspect(spec.name).phase is Phase.BROKEN)
        assert next(deployer.watch(Event())) == spec.name

    def test_a_silent_engine_is_asked_again(self, deployer, make_spec, monkeypatch):
        connected = Semaphore(0)
        opened = Events.open
        monkeypatch.setattr(Events, "open", lambda one: (opened(one), connected.release())[0])
        impatient = DockerDeployer(instance=deployer.instance, call_timeout=3)
        names = impatient.watch(Event())
        for _ in range(2):
            connected.acquire()
        spec = make_spec()
        self.start(deployer, spec)
        self.let_die(deployer, spec.name)
        assert next(names) == spec.name
        names.close()
        impatient.close()

    def test_events_that_break_off_are_unavailable(self, deployer, make_spec, tmp_path):
        address = str(tmp_path / "engine.sock")
        with gateway(address) as cut:
            behind = DockerDeployer(instance=deployer.instance, base_url=f"unix://{address}")
            names = behind.watch(Event())
            spec = make_spec()
            self.start(deployer, spec)
            self.let_die(deployer, spec.name)
            assert next(names) == spec.name
            cut()
            with pytest.raises(Unavailable, match="tell which of its containers ended"):
                next(names)
            behind.close()

from __future__ import annotations

import socket
from threading import Event

import pytest

from deployers.errors import PortTaken, Rejected, Unavailable
from deployers.fake import FakeDeployer
from deployers.fake.images import IMAGE_BYTES
from deployers.observation import Phase
from tests.deployers.contract import DeployerContract
from tests.deployers.contract.calls import fetch, guest_answers
from tests.deployers.fake_steps import FakeSteps
from tests.waiting import eventually


class TestFake(FakeSteps, DeployerContract):
    pass


class TestFakeWithImages(FakeSteps, DeployerContract):
    options = {"images": {"fake/image:latest": "sha256:1"}}


class TestFakeWithLittle(FakeSteps, DeployerContract):
    options = {
        "needs_host_port": True,
        "supports_mounts": False,
        "supports_limits": False,
        "supports_logs": False,
        "supports_stop": False,
        "supports_pause": False,
        "supports_watch": False,
        "supports_network": False,
    }


class TestKnobs(FakeSteps):
    def test_every_deployer_of_an_instance_sees_the_same_sandboxes(self, deployer, make_spec):
        spec = make_spec()
        self.start(deployer, spec)
        again = FakeDeployer(instance=deployer.instance)
        assert again.inspect(spec.name) == deployer.inspect(spec.name)

    @pytest.mark.parametrize(
        "failure",
        [
            Unavailable,
            Unavailable("The engine sleeps."),
            lambda name: Unavailable(f"{name} sleeps."),
        ],
    )
    def test_a_start_that_is_told_to_fail_leaves_nothing(self, deployer, make_spec, failure):
        spec = make_spec()
        deployer.fail_start = failure
        with pytest.raises(Unavailable):
            deployer.start(spec)
        assert deployer.inspect(spec.name).phase is Phase.ABSENT
        assert deployer.calls["start"] == 1

    def test_a_failure_may_be_for_some_only(self, deployer, make_spec):
        good, bad = make_spec(), make_spec()
        deployer.fail_start = lambda name: Rejected("No.") if name == bad.name else None
        self.start(deployer, good)
        with pytest.raises(Rejected):
            deployer.start(bad)

    def test_it_stays_starting_until_it_is_ready(self, deployer, make_spec):
        spec = make_spec()
        deployer.ready = False
        seen = deployer.start(spec)
        assert (seen.phase, seen.url) == (Phase.STARTING, "")
        deployer.ready = True
        self.start(deployer, spec)

    def test_it_dies_and_its_guest_with_it(self, deployer, make_spec):
        spec = make_spec()
        deployer.dies_after = 0
        url = deployer.start(spec).url
        assert deployer.inspect(spec.name).phase is Phase.BROKEN
        assert not guest_answers(url)

    def test_its_guest_dies_in_time_although_nobody_looks(self, deployer, make_spec):
        deployer.dies_after = 0.05
        url = deployer.start(make_spec()).url
        assert guest_answers(url)
        assert eventually(lambda: not guest_answers(url))

    def test_it_disappears(self, deployer, make_spec):
        spec = make_spec()
        deployer.disappears_after = 0
        deployer.start(spec)
        assert deployer.inspect(spec.name).phase is Phase.ABSENT
        assert list(deployer.inspect_all()) == []

    def test_a_watch_may_break(self, deployer):
        names = deployer.watch(Event())
        deployer.fail_watch = Unavailable("The engine was restarted.")
        with pytest.raises(Unavailable, match="restarted"):
            next(names)
        with pytest.raises(Unavailable, match="restarted"):
            deployer.watch(Event())

    def test_the_guest_may_be_late_or_sick(self, deployer, make_spec):
        deployer.guest_delay = 3600
        url = deployer.start(make_spec()).url
        assert fetch(url, "/fastapi/healthz")[0] == 503
        deployer.guest_delay, deployer.guest_status = 0, 500
        url = deployer.start(make_spec()).url
        assert fetch(url, "/fastapi/healthz")[0] == 500

    def test_a_build_makes_an_image_that_can_be_tagged_and_started(self, make_spec, tmp_path):
        (tmp_path / "Dockerfile").write_text("FROM base\nRUN true\n")
        with_images = FakeDeployer(instance="fake-build", images={}, offered=frozenset({"a/b"}))
        steps = with_images.build(tmp_path)
        lines = [next(steps), next(steps), next(steps)]
        with pytest.raises(StopIteration) as end:
            next(steps)
        assert lines[1] == "Step 2/2 : RUN true"
        with_images.tag_image(end.value.value, "made/here:1")
        assert with_images.find_image("made/here:1") == end.value.value
        assert with_images.image_size("made/here:1") == IMAGE_BYTES
        with_images.remove_image(end.value.value, only_untagged=True)
        assert with_images.find_image("made/here:1") == end.value.value
        with_images.start(make_spec(image="made/here:1"))
        with_images.start(make_spec(image="a/b"))
        assert with_images.calls["pull"] == 1
        with_images.remove_image(end.value.value)
        assert with_images.find_image("made/here:1") is None
        with_images.clear()

    def test_a_build_may_fail(self, tmp_path):
        failing = FakeDeployer(instance="fake-build", images={}, fail_build=Rejected("Step 1."))
        with pytest.raises(Rejected, match=r"Step 1\."):
            list(failing.build(tmp_path))
        assert failing.images == {}


class TestPorts(FakeSteps):
    options = {"needs_host_port": True}

    def test_a_port_that_a_stranger_holds_is_told(self, deployer, make_spec):
        with socket.create_server(("127.0.0.1", 0)) as stranger:
            port = stranger.getsockname()[1]
            with pytest.raises(PortTaken) as caught:
                deployer.start(make_spec(host_port=port))
        assert caught.value.port == port
        assert self.leftovers(deployer) == []

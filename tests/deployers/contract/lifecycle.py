"""Start, inspect and remove: once, twice, at once, and half made."""

from __future__ import annotations

import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from deployers.errors import DeployerError
from deployers.observation import Observation, Phase
from tests.deployers.contract.calls import TOKEN, guest_answers
from tests.deployers.contract.steps import DeployerSteps


class LifecycleTests(DeployerSteps):
    def test_start_makes_it_ready_with_a_url_where_the_guest_answers(self, deployer, make_spec):
        spec = make_spec()
        seen = self.start(deployer, spec)
        assert seen.url.startswith(("http://", "https://", "http+unix://"))
        assert not seen.url.endswith("/")
        assert seen.detail == ""
        assert seen.exit_code is None
        assert seen.started_at.tzinfo is not None
        assert abs(seen.started_at.timestamp() - time.time()) < 60
        names = [name for name, _ in seen.laps]
        assert set(names) <= {"network", "created", "started"}
        assert len(names) == len(set(names))
        assert all(seconds >= 0 for _, seconds in seen.laps)
        # A look knows nothing of how it came up.
        assert deployer.inspect(spec.name).laps == ()

    def test_start_twice_is_a_success_and_makes_one(self, deployer, make_spec):
        spec = make_spec()
        first = self.start(deployer, spec)
        second = deployer.start(spec)
        assert second.phase is Phase.READY
        assert (second.url, second.container_id) == (first.url, first.container_id)
        assert deployer.inspect(spec.name).started_at == first.started_at
        assert [seen.name for seen in deployer.inspect_all()] == [spec.name]

    def test_two_threads_that_start_the_same_name_make_one(self, deployer, make_spec):
        spec = make_spec()
        barrier = Barrier(2)

        def start() -> Observation:
            barrier.wait()
            return deployer.start(spec)

        with ThreadPoolExecutor(2) as threads:
            answers = [future.result() for future in [threads.submit(start) for _ in range(2)]]
        seen = self.start(deployer, spec)
        assert {answer.container_id for answer in answers} == {seen.container_id}
        assert [one.name for one in deployer.inspect_all()] == [spec.name]

    def test_remove_twice_is_a_success_and_ends_the_guest(self, deployer, make_spec):
        spec = make_spec()
        url = self.start(deployer, spec).url
        deployer.remove(spec.name)
        assert deployer.inspect(spec.name).phase is Phase.ABSENT
        assert self.leftovers(deployer) == []
        assert not guest_answers(url)
        deployer.remove(spec.name)
        assert deployer.inspect(spec.name).phase is Phase.ABSENT

    def test_remove_of_what_never_was_is_a_success(self, deployer):
        deployer.remove("contract-never-was")

    def test_inspect_of_what_never_was_is_absent(self, deployer):
        seen = deployer.inspect("contract-never-was")
        assert seen == Observation(name="contract-never-was", phase=Phase.ABSENT)

    def test_two_threads_that_remove_the_same_name_both_succeed(self, deployer, make_spec):
        spec = make_spec()
        self.start(deployer, spec)
        barrier = Barrier(2)

        def remove() -> Phase:
            barrier.wait()
            deployer.remove(spec.name)
            return deployer.inspect(spec.name).phase

        with ThreadPoolExecutor(2) as threads:
            phases = [future.result() for future in [threads.submit(remove) for _ in range(2)]]
        assert phases == [Phase.ABSENT, Phase.ABSENT]

    def test_remove_of_what_is_half_made_leaves_nothing(self, deployer, make_spec):
        spec = make_spec()
        self.make_half(deployer, spec)
        assert deployer.inspect(spec.name).phase is not Phase.READY
        deployer.remove(spec.name)
        assert deployer.inspect(spec.name).phase is Phase.ABSENT
        assert self.leftovers(deployer) == []

    def test_start_of_what_is_half_made_makes_it_whole(self, deployer, make_spec):
        spec = make_spec()
        self.make_half(deployer, spec)
        self.start(deployer, spec)

    def test_a_name_of_63_characters_works(self, deployer, make_spec):
        spec = make_spec(name=f"contract-{secrets.token_hex(27)}")
        assert len(spec.name) == 63
        self.start(deployer, spec)
        assert [seen.name for seen in deployer.inspect_all()] == [spec.name]
        deployer.remove(spec.name)
        assert deployer.inspect(spec.name).phase is Phase.ABSENT

    def test_a_name_may_be_used_again_and_starts_empty(self, deployer, make_spec):
        spec = make_spec()
        self.start(deployer, spec)
        if self.can_run_inside:
            self.inside(deployer, spec.name, "echo left > /tmp/trace")
        deployer.remove(spec.name)
        self.start(deployer, spec)
        if self.can_run_inside:
            assert self.run_inside(deployer, spec.name, "test -e /tmp/trace")[0] == 1

    def test_a_missing_image_is_refused_by_name_and_leaves_nothing(self, deployer, make_spec):
        self.need(deployer, "supports_images")
        spec = make_spec(image="localhost:1/contract/no-such-image:never")
        with pytest.raises(DeployerError, match="no-such-image") as caught:
            deployer.start(spec)
        assert TOKEN not in str(caught.value)
        assert deployer.inspect(spec.name).phase is Phase.ABSENT
        assert self.leftovers(deployer) == []

"""What is seen of a sandbox: how it ended, whose it is, what it wrote."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deployers.errors import Rejected
from deployers.observation import Phase
from tests.deployers.contract.steps import DeployerSteps
from tests.waiting import eventually


class ObservationTests(DeployerSteps):
    def test_what_ended_by_itself_is_broken_with_the_reason(self, deployer, make_spec):
        spec = make_spec()
        self.start(deployer, spec)
        code = self.let_die(deployer, spec.name)
        assert eventually(lambda: deployer.inspect(spec.name).phase is Phase.BROKEN)
        seen = deployer.inspect(spec.name)
        assert seen.detail
        assert seen.url == ""
        if self.knows_exit_codes:
            assert seen.exit_code == code
            assert str(code) in seen.detail
        assert [one.phase for one in deployer.inspect_all()] == [Phase.BROKEN]
        deployer.remove(spec.name)
        assert deployer.inspect(spec.name).phase is Phase.ABSENT

    def test_start_of_what_is_broken_starts_it_afresh(self, deployer, make_spec):
        spec = make_spec()
        self.start(deployer, spec)
        if self.can_run_inside:
            self.inside(deployer, spec.name, "echo left > /tmp/trace")
        self.let_die(deployer, spec.name)
        assert eventually(lambda: deployer.inspect(spec.name).phase is Phase.BROKEN)
        self.start(deployer, spec)
        if self.can_run_inside:
            assert self.run_inside(deployer, spec.name, "test -e /tmp/trace")[0] == 1

    def test_inspect_all_shows_ours_and_no_strangers(self, deployer, make_spec):
        ours = [make_spec().name for _ in range(2)]
        theirs = make_spec()
        other = self.other_instance(deployer)
        try:
            for name in ours:
                self.start(deployer, make_spec(name=name))
            self.start(other, theirs)
            assert sorted(seen.name for seen in deployer.inspect_all()) == sorted(ours)
            assert [seen.name for seen in other.inspect_all()] == [theirs.name]
            shown, looked = next(iter(other.inspect_all())), other.inspect(theirs.name)
            assert replace(shown, started_at=None) == replace(looked, started_at=None)
            assert shown.started_at <= looked.started_at
            deployer.remove(theirs.name)
            assert other.inspect(theirs.name).phase is Phase.READY
            assert deployer.inspect(theirs.name).phase is Phase.ABSENT
        finally:
            other.remove(theirs.name)
            left = self.leftovers(other)
            other.close()
        assert left == []

    def test_what_is_foreign_is_neither_shown_nor_touched(self, deployer, make_spec):
        spec = make_spec()
        with self.make_foreign(deployer, spec) as is_intact:
            assert deployer.inspect(spec.name).phase is Phase.ABSENT
            assert list(deployer.inspect_all()) == []
            deployer.remove(spec.name)
            assert is_intact()
            with pytest.raises(Rejected, match=spec.name):
                deployer.start(spec)
            assert is_intact()

    def test_logs_show_the_last_lines(self, deployer, make_spec):
        self.need(deployer, "supports_logs")
        spec = make_spec()
        self.start(deployer, spec)
        for number in range(5):
            self.say(deployer, spec.name, f"line {number}")
        assert eventually(lambda: "line 4" in deployer.logs(spec.name))
        assert deployer.logs(spec.name, lines=2).splitlines() == ["line 3", "line 4"]
        self.let_die(deployer, spec.name)
        assert eventually(lambda: deployer.inspect(spec.name).phase is Phase.BROKEN)
        assert "line 0\nline 1\nline 2" in deployer.logs(spec.name)
        assert deployer.logs("contract-never-was") == ""

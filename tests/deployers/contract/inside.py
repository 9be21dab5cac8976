"""What reaches the inside: environment, workspace and mounts."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployers.errors import Rejected
from deployers.observation import Phase
from deployers.specs import Mount
from tests.deployers.contract.calls import TOKEN
from tests.deployers.contract.steps import DeployerSteps


class InsideTests(DeployerSteps):
    def test_the_environment_reaches_the_guest(self, deployer, make_spec):
        self.need(deployer, "can_run_inside")
        value = 'it\'s a "value" with $signs, ünicode and = in it'
        spec = make_spec(env={"SECRET_TOKEN": TOKEN, "CONTRACT_VALUE": value})
        self.start(deployer, spec)
        assert self.inside(deployer, spec.name, "printenv CONTRACT_VALUE") == value

    def test_the_workspace_is_writable_and_survives_removal(self, deployer, make_spec, tmp_path):
        self.need(deployer, "supports_mounts", "can_run_inside")
        (tmp_path / "input.txt").write_text("from outside")
        spec = make_spec(workspace=tmp_path)
        self.start(deployer, spec)
        assert self.inside(deployer, spec.name, "cat /workspace/input.txt") == "from outside"
        self.inside(deployer, spec.name, "mkdir /workspace/sub && echo hi > /workspace/sub/out")
        self.inside(deployer, spec.name, "rm /workspace/input.txt")
        deployer.remove(spec.name)
        assert [path.name for path in tmp_path.iterdir()] == ["sub"]
        assert (tmp_path / "sub" / "out").read_text() == "hi\n"
        (tmp_path / "sub" / "out").unlink()

    def test_without_a_workspace_directory_it_is_writable_too(self, deployer, make_spec):
        self.need(deployer, "can_run_inside")
        spec = make_spec()
        self.start(deployer, spec)
        assert self.inside(deployer, spec.name, "cd /workspace && echo hi > f && cat f") == "hi"

    def test_mounts_are_read_only_unless_said_otherwise(self, deployer, make_spec, tmp_path):
        self.need(deployer, "supports_mounts", "can_run_inside")
        fixed, open_ = tmp_path / "fixed", tmp_path / "open"
        for directory in (fixed, open_):
            directory.mkdir()
            directory.chmod(0o777)
            (directory / "here").write_text("seen")
        mounts = (
            Mount(source=fixed, target="/mnt/fixed"),
            Mount(source=open_, target="/mnt/open", read_only=False),
        )
        spec = make_spec(mounts=mounts)
        self.start(deployer, spec)
        assert self.inside(deployer, spec.name, "cat /mnt/fixed/here /mnt/open/here") == "seenseen"
        assert self.run_inside(deployer, spec.name, "touch /mnt/fixed/new")[0] != 0
        self.inside(deployer, spec.name, "touch /mnt/open/new")
        assert not (fixed / "new").exists()
        assert (open_ / "new").exists()

    def test_a_mount_whose_source_is_missing_is_refused(self, deployer, make_spec, tmp_path):
        self.need(deployer, "supports_mounts")
        missing = tmp_path / "missing"
        spec = make_spec(mounts=(Mount(source=missing, target="/mnt/missing"),))
        with pytest.raises(Rejected, match=str(missing)):
            deployer.start(spec)
        assert not Path(missing).exists()
        assert deployer.inspect(spec.name).phase is Phase.ABSENT

"""Whose the files of a workspace are."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from deployers.docker import DockerDeployer
from deployers.errors import Rejected
from tests.deployers.docker_steps import DockerSteps, call_as, needs_root

pytestmark = pytest.mark.docker


class TestOwner(DockerSteps):
    @needs_root
    def test_root_gives_its_files_to_the_image_s_user(self, deployer, make_spec, tmp_path):
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "file").write_text("a")
        secret = tmp_path.parent / "outside-secret"
        secret.write_text("s")
        (tmp_path / "link").symlink_to(secret)
        spec = make_spec(workspace=tmp_path)
        self.start(deployer, spec)
        self.inside(deployer, spec.name, "echo b >> /workspace/sub/file; touch /workspace/sub/new")
        assert (tmp_path / "sub" / "new").stat().st_uid == 1000
        assert secret.stat().st_uid == 0

    @needs_root
    def test_a_workspace_of_somebody_else_keeps_its_owner(self, deployer, make_spec, tmp_path):
        os.chown(tmp_path, 4321, 4321)
        spec = make_spec(workspace=tmp_path)
        self.start(deployer, spec)
        assert self.inside(deployer, spec.name, "touch /workspace/new; id -u") == "4321"
        assert (tmp_path / "new").stat().st_uid == 4321

    @needs_root
    def test_an_ordinary_user_owns_what_its_sandboxes_write(self, deployer, make_spec):
        uid, docker_group = 2345, Path("/var/run/docker.sock").stat().st_gid

        def write() -> str:
            with tempfile.TemporaryDirectory() as directory:
                mine = DockerDeployer(instance=deployer.instance)
                spec = make_spec(workspace=Path(directory))
                self.start(mine, spec)
                self.inside(
                    mine, spec.name, "mkdir -m 700 /workspace/d; echo $HOME >/workspace/d/f"
                )
                written = Path(directory, "d", "f")
                mine.remove(spec.name)
                return f"{written.read_text().strip()} {written.stat().st_uid}"

        assert call_as(uid, [docker_group], write) == f"/tmp {uid}"

    def test_a_workspace_that_is_missing_is_refused(self, deployer, make_spec, tmp_path):
        with pytest.raises(Rejected, match="Create it"):
            deployer.start(make_spec(workspace=tmp_path / "missing"))

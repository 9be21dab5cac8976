from __future__ import annotations

import os
import resource
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deployers.docker import DockerDeployer
from deployers.docker.build import build
from deployers.docker.engine import Engine
from deployers.errors import Rejected, Unavailable
from tests.deployers.docker_steps import DockerSteps, call_as
from tests.deployers.registry import Registry
from tests.deployers.tiny_image import TINY, build_image
from tests.waiting import eventually

pytestmark = pytest.mark.docker


@pytest.fixture
def registry(request):
    registry = Registry("team/tool", **getattr(request, "param", {}))
    yield registry
    registry.close()


class TestPull(DockerSteps):
    def test_an_image_is_found_only_when_it_is_here(self, deployer, registry):
        assert deployer.find_image(registry.reference) is None
        assert deployer.can_pull(registry.reference)
        deployer.pull(registry.reference)
        image_id = deployer.find_image(registry.reference)
        assert image_id.startswith("sha256:")
        deployer.remove_image(image_id)
        assert deployer.find_image(registry.reference) is None
        deployer.remove_image(image_id)

    @pytest.mark.parametrize("registry", [{"megabytes": 8, "seconds": 1}], indirect=True)
    def test_threads_that_need_the_same_image_pull_it_once(
        self, deployer, make_spec, registry, caplog, monkeypatch
    ):
        monkeypatch.setattr("deployers.docker.images.PROGRESS_SECONDS", 0.2)
        caplog.set_level("INFO", "deployers.docker")
        # A deployer for each thread, as Django's connection handlers make them.
        deployers = [DockerDeployer(instance=deployer.instance) for _ in range(3)]
        with ThreadPoolExecutor(3) as threads:
            images = list(threads.map(lambda one: one._images.get(registry.reference), deployers))
        for one in deployers:
            one.close()
        deployer.remove_image(images[0].id)
        assert registry.requests[registry.layer_path] == 1
        said = [one.getMessage() for one in caplog.records]
        assert len([line for line in said if line.startswith("Pulled ")]) == 1
        assert any(" MB, 0 of 1 layers" in line and " %" in line for line in said)
        assert "1 of 1 layers" in said[-1]

    def test_a_refusal_names_image_registry_answer_and_what_to_do(self, deployer, registry):
        missing = registry.reference.replace("tool", "other")
        host = missing.partition("/")[0]
        assert not deployer.can_pull(missing)
        with pytest.raises(Rejected) as caught:
            deployer.pull(missing)
        said = str(caught.value)
        for words in (missing, f"registry {host}", "unknown", "buildimage TYPE", "docker login"):
            assert words in said

    def test_a_registry_that_is_not_there_may_come_back(self, deployer):
        began = time.monotonic()
        assert not deployer.can_pull("127.0.0.1:1/some/image:1.2")
        assert time.monotonic() - began < 4
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
            deployer.pull("127.0.0.1:1/some/image:1.2")


class TestBuild(DockerSteps):
    @pytest.fixture
    def context(self, tmp_path):
        context = tmp_path / "context"
        context.mkdir()
        return context

    def test_it_yields_its_log_and_returns_the_id(self, deployer, context):
        (context / "Dockerfile").write_text(f"FROM {TINY}\nRUN echo one; echo two\n")
        lines = []
        steps = deployer.build(context, labels={"made.by": "a test"}, no_cache=True)
        try:
            while True:
                lines.append(next(steps))
        except StopIteration as end:
            image_id = end.value
        try:
            assert lines[0].startswith("Step 1/")
            assert lines.index("one") + 1 == lines.index("two")
            found = self.engine.images.get(image_id)
            assert found.labels["made.by"] == "a test"
            assert found.tags == []
        finally:
            deployer.remove_image(image_id)

    def test_it_leaves_out_what_dockerignore_names(self, deployer, context, make_spec):
        (context / ".dockerignore").write_text("# secrets\n*.key\n\n!public.key\n")
        for name in ("private.key", "public.key", "plain"):
            (context / name).write_text("x")
        (context / "Dockerfile").write_text(f"FROM {TINY}\nCOPY . /copied\n")
        image_id = build_image(deployer, context)
        spec = make_spec(image=image_id)
        self.start(deployer, spec)
        listed = self.inside(deployer, spec.name, "ls /copied").split()
        deployer.remove(spec.name)
        deployer.remove_image(image_id)
        assert "plain" in listed
        assert "public.key" in listed
        assert "private.key" not in listed

    def test_a_dockerfile_may_lie_outside_of_the_context(self, deployer, context, tmp_path):
        (context / "file").write_text("x")
        elsewhere = tmp_path / "elsewhere.Dockerfile"
        elsewhere.write_text(f"FROM {TINY}\nCOPY file /file\n")
        image_id = build_image(deployer, context, dockerfile=elsewhere)
        assert image_id.startswith("sha256:")
        deployer.remove_image(image_id)

    def test_a_step_that_fails_is_named_and_leaves_no_container(self, deployer, context):
        (context / "Dockerfile").write_text(f"FROM {TINY}\nRUN echo said; exit 9\n")
        lines = []
        with pytest.raises(Rejected, match=r"Step 2/2 : RUN echo said; exit 9.*non-zero code: 9"):
            lines.extend(deployer.build(context))
        assert self.containers_of_tiny() == []

    def test_a_dockerfile_that_is_wrong_or_missing_is_named(self, deployer, context):
        with pytest.raises(Rejected, match="no Dockerfile at"):
            list(deployer.build(context))
        (context / "Dockerfile").write_text("NONSENSE here\n")
        with pytest.raises(Rejected, match="NONSENSE"):
            list(deployer.build(context))
        with pytest.raises(Rejected, match="not a directory"):
            list(deployer.build(context / "missing"))

    def test_a_context_that_cannot_be_read_is_named(self, deployer, context, tmp_path):
        (context / "Dockerfile").write_text(f"FROM {TINY}\n")
        unreadable = context / "unreadable"
        unreadable.write_text("x")
        unreadable.chmod(0)

        def build_it():
            with pytest.raises(Rejected, match="unreadable"):
                list(deployer.build(context))
            return "refused"

        tmp_path.chmod(0o755)
        for directory in tmp_path.parents[:2]:
            directory.chmod(0o755)
        group = Path("/var/run/docker.sock").stat().st_gid
        assert os.geteuid() != 0 or call_as(2345, [group], build_it) == "refused"

    def test_a_build_that_is_closed_ends_in_the_engine(self, deployer, context):
        (context / "Dockerfile").write_text(f"FROM {TINY}\nRUN echo begun; sleep 60\n")
        steps = deployer.build(context, no_cache=True)
        for line in steps:
            if line == "begun":
                break
        assert self.containers_of_tiny() != []
        steps.close()
        assert eventually(lambda: self.containers_of_tiny() == [], seconds=5)

    def test_a_context_is_not_held_in_memory(self, deployer, context):
        with (context / "large").open("wb") as large:
            large.truncate(300 << 20)
        (context / "Dockerfile").write_text("NONSENSE here\n")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(Rejected):
            list(build(Engine(None, call_timeout=30), context))
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60 << 10

    def containers_of_tiny(self) -> list[str]:
        return [
            one.name for one in self.engine.containers.list(all=True, filters={"ancestor": TINY})
        ]


class TestTags(DockerSteps):
    def test_a_tag_moves_and_an_image_goes_with_all_its_tags(self, deployer, tmp_path):
        name = f"sandboxplatform-test-{secrets.token_hex(4)}"
        ids = []
        for number in range(2):
            (tmp_path / "Dockerfile").write_text(
                f"FROM {TINY}\nLABEL number={number} test={name}\n"
            )
            ids.append(build_image(deployer, tmp_path, f"{name}:latest"))
        assert deployer.find_image(f"{name}:latest") == ids[1] != ids[0]
        assert deployer.image_size(f"{name}:latest") > 1_000_000
        deployer.tag_image(ids[1], f"{name}:second")
        deployer.remove_image(ids[1], only_untagged=True)
        assert deployer.find_image(f"{name}:second") == ids[1]
        for image_id in ids:
            deployer.remove_image(image_id)
            assert deployer.find_image(image_id) is None
        assert deployer.find_image(f"{name}:second") is None
        assert deployer.image_size(f"{name}:second") is None

    def test_an_image_in_use_is_not_removed(self, deployer, make_spec, tmp_path):
        (tmp_path / "Dockerfile").write_text(f"FROM {TINY}\nLABEL used=yes\n")
        image_id = build_image(deployer, tmp_path)
        spec = make_spec(image=image_id)
        self.start(deployer, spec)
        with pytest.raises(Rejected, match="used by"):
            deployer.remove_image(image_id)
        deployer.remove(spec.name)
        deployer.remove_image(image_id)

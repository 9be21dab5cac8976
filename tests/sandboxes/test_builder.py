"""Building images on a real engine, from small Dockerfiles beside the real guest's base."""

from __future__ import annotations

import shutil

import docker
import pytest
from django.core.management import CommandError, call_command

from sandboxes import builder

pytestmark = [pytest.mark.base_image, pytest.mark.django_db]

TAG = "sandboxplatform-test/runtime-sandbox-small:test"
GOOD = "FROM agentscope/runtime-sandbox-base:latest\nLABEL version={version}\n"


@pytest.fixture
def engine():
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture
def dockerfile(tmp_path, monkeypatch, settings, engine):
    """Where the Dockerfile of a type called small is written; its image is removed at the end."""
    platform = settings.PLATFORM
    monkeypatch.setattr(platform, "RUNTIME_SANDBOX_IMAGE_NAMESPACE", "sandboxplatform-test")
    monkeypatch.setattr(platform, "RUNTIME_SANDBOX_IMAGE_TAG", "test")
    monkeypatch.setattr(builder, "CONTEXT", tmp_path)
    monkeypatch.setattr(builder, "CHECK_SECONDS", 20)
    file = tmp_path / "images" / "small" / "Dockerfile"
    file.parent.mkdir(parents=True)
    yield file
    shutil.rmtree(tmp_path / "images")
    try:
        engine.images.remove(TAG, force=True)
    except docker.errors.ImageNotFound:
        return


def tagged(engine):
    try:
        return engine.images.get(TAG).id
    except docker.errors.ImageNotFound:
        return None


def leftovers(engine):
    containers = engine.containers.list(all=True, filters={"name": builder.CHECK_NAME})
    networks = engine.networks.list(names=["sandboxplatform-build-small"])
    return [*containers, *networks]


def test_a_build_shows_its_output_checks_the_result_and_tags_it(dockerfile, engine, capsys):
    dockerfile.write_text(GOOD.format(version=1))
    call_command("buildimage", "small")
    output = capsys.readouterr().out
    assert "LABEL version=1" in output
    assert "checking that a sandbox starts from it" in output
    assert f"Tagged {TAG}" in output
    assert engine.images.get(TAG).labels["version"] == "1"
    assert leftovers(engine) == []


def test_a_check_that_fails_keeps_the_old_tag_and_shows_the_logs_tail(dockerfile, engine):
    dockerfile.write_text(GOOD.format(version=1))
    call_command("buildimage", "small")
    old = tagged(engine)
    broken = 'CMD ["sh", "-c", "echo the licence is missing >&2; exit 3"]\n'
    dockerfile.write_text(GOOD.format(version=2) + broken)
    with pytest.raises(CommandError) as caught:
        call_command("buildimage", "small")
    assert "the licence is missing" in str(caught.value)
    assert f"{TAG} still names {old}" in str(caught.value)
    assert tagged(engine) == old
    assert leftovers(engine) == []


def test_a_step_that_fails_is_named_and_nothing_is_tagged(dockerfile, engine):
    dockerfile.write_text(GOOD.format(version=1) + "RUN echo no such step; exit 9\n")
    with pytest.raises(CommandError, match="exit 9"):
        call_command("buildimage", "small")
    assert tagged(engine) is None
    assert leftovers(engine) == []


def test_a_type_without_a_dockerfile_is_refused_with_those_that_have_one(dockerfile):
    dockerfile.write_text("FROM scratch\n")
    with pytest.raises(CommandError, match=r"no Dockerfile for 'boat'.*small"):
        call_command("buildimage", "boat")

"""Building images on a real engine, from small Dockerfiles beside the real guest's base."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress

import docker
import pytest
from django.core.management import CommandError, call_command

from sandboxes import build_check, builder
from sandboxes.models import ImageBuild
from sandboxes.models.image_build import BuildState
from sandboxplatform.setting_table import BASE_DIR, BY_NAME
from tests.factories import make_type
from tests.waiting import eventually

pytestmark = [pytest.mark.base_image, pytest.mark.django_db(transaction=True)]

TAG = "sandboxplatform-test/runtime-sandbox-small:test"
GOOD = "FROM agentscope/runtime-sandbox-base:latest\nLABEL sandboxplatform-test=small\nLABEL version={version}\n"
BUILD_SMALL = """
import sys
from pathlib import Path
import django
from django.core.management import execute_from_command_line
django.setup()
from sandboxes import builder
from sandboxes.registry import SandboxRegistry
SandboxRegistry.register("", "small")(type("Small", (), {}))
builder.CONTEXT = Path(sys.argv[1])
execute_from_command_line(["manage.py", "buildimage", "small"])
"""


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
    monkeypatch.setattr(build_check, "CHECK_SECONDS", 20)
    make_type("small")
    file = tmp_path / "images" / "small" / "Dockerfile"
    file.parent.mkdir(parents=True)
    yield file
    shutil.rmtree(tmp_path / "images")
    with suppress(docker.errors.ImageNotFound):
        engine.images.remove(TAG, force=True)
    # What a build that failed leaves in the engine's cache.
    engine.images.prune(filters={"dangling": True, "label": "sandboxplatform-test=small"})


def tagged(engine):
    try:
        return engine.images.get(TAG).id
    except docker.errors.ImageNotFound:
        return None


def leftovers(engine):
    containers = engine.containers.list(all=True, filters={"name": build_check.CHECK_NAME})
    networks = engine.networks.list(names=["sandboxplatform-build-small"])
    return [*containers, *networks]


def test_a_build_shows_its_output_checks_the_result_and_tags_it(dockerfile, engine, capsys):
    dockerfile.write_text(GOOD.format(version=1))
    call_command("buildimage", "small")
    output = capsys.readouterr().out
    assert "LABEL version=1" in output
    assert "checking that a sandbox starts from it" in output
    assert f"Tagged {TAG}" in output
    image = engine.images.get(TAG)
    assert image.labels["version"] == "1"
    row = ImageBuild.objects.get()
    assert (row.state, row.digest, row.size_bytes) == ("succeeded", image.id, image.attrs["Size"])
    assert "LABEL version=1" in row.log
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
    row = ImageBuild.objects.first()
    assert (row.state, row.detail) == ("failed", str(caught.value))
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


@pytest.mark.parametrize(
    ("number", "last_line", "shown"),
    [
        (signal.SIGINT, 'CMD ["sleep", "60"]', "checking that a sandbox starts"),
        (signal.SIGTERM, "RUN echo begun; sleep 60", "begun"),
    ],
)
def test_a_build_of_a_fresh_clone_that_is_ended_leaves_nothing_in_the_engine(
    dockerfile, engine, tmp_path, number, last_line, shown
):
    version = f"ended-{number}"
    dockerfile.write_text(f"{GOOD.format(version=version)}{last_line}\n")
    kept = {name: value for name, value in os.environ.items() if name not in BY_NAME}
    settings = {
        "DATA_DIR": str(tmp_path / "data"),
        "RUNTIME_SANDBOX_IMAGE_NAMESPACE": "sandboxplatform-test",
        "RUNTIME_SANDBOX_IMAGE_TAG": "test",
        "DJANGO_SETTINGS_MODULE": "sandboxplatform.settings",
        "PYTHONUNBUFFERED": "1",
    }
    command = [sys.executable, "-c", BUILD_SMALL, str(tmp_path)]
    with (tmp_path / "output").open("w+") as output:
        process = subprocess.Popen(
            command, cwd=BASE_DIR, env=kept | settings, stdout=output, stderr=subprocess.STDOUT
        )
        assert eventually(lambda: shown in (tmp_path / "output").read_text())
        ours = {"label": f"version={version}"}
        assert eventually(lambda: engine.containers.list(filters=ours))
        process.send_signal(number)
        assert process.wait(30) == 130
    said = (tmp_path / "output").read_text()
    assert said.endswith(
        "CommandError: Cancelled. The tag was not moved, unless the last line says so.\n"
    )
    with closing(sqlite3.connect(tmp_path / "data" / "db.sqlite3")) as database:
        rows = database.execute("SELECT state, finished_at, log FROM sandboxes_imagebuild")
        state, finished_at, log = rows.fetchone()
    assert (state, bool(finished_at), shown in log) == ("cancelled", True, True)
    assert tagged(engine) is None
    assert leftovers(engine) == []
    assert eventually(lambda: engine.containers.list(all=True, filters=ours) == [])


def test_the_image_of_a_build_that_was_killed_in_its_check_is_removed_behind_the_next(
    dockerfile, engine
):
    dockerfile.write_text(GOOD.format(version="killed"))
    steps = builder.build("small")
    for line in steps:
        if line.startswith("Built "):
            break
    image_id = line.split()[1].rstrip(";")
    # What a killed process leaves: a row that nobody closed, and an image that nobody tagged.
    ImageBuild.objects.get().move_to(BuildState.FAILED, detail="killed")
    dockerfile.write_text(GOOD.format(version="next"))
    call_command("buildimage", "small")
    assert tagged(engine) != image_id
    with pytest.raises(docker.errors.ImageNotFound):
        engine.images.get(image_id)
    assert ImageBuild.objects.get(state="failed").digest == ""
    with pytest.raises(builder.BuildFailed):
        list(steps)

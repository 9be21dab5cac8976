"""The engine, and the images that it has or could have."""

from __future__ import annotations

import pytest

from sandboxes import registry
from sandboxes.models import SandboxType
from sandboxplatform.doctor import engine
from sandboxplatform.doctor.findings import Status
from tests.sandboxplatform.doctor.looking import examined


def give_images(fake, images, offered=()):
    fake.images, fake.supports_images, fake.offered = images, True, frozenset(offered)


def test_an_image_that_a_registry_offers_is_a_warning_and_not_pulled(fake, subject):
    image = registry.image_of("base", "")
    give_images(fake, {}, [image])
    results = examined(subject, "sandbox")
    assert results["images"].status is Status.WARN
    assert f"docker pull {image}" in results["images"].fixes[0]
    assert results["sandbox"].status is Status.SKIP
    assert fake.calls["pull"] == 0


@pytest.mark.parametrize(
    ("name", "advice"),
    [("base", "python manage.py buildimage base"), ("gui", "RUNTIME_SANDBOX_REGISTRY")],
)
def test_an_image_that_is_nowhere_fails_and_says_how_to_get_it(fake, subject, name, advice):
    give_images(fake, {})
    subject.platform.DEFAULT_SANDBOX_TYPE = [name]
    result = examined(subject, "images")["images"]
    assert (result.status, advice in result.fixes[0]) == (Status.FAIL, True), result


def test_every_default_type_is_looked_for_and_disabled_ones_are_named(fake, subject):
    registry.sync()
    SandboxType.objects.filter(name="gui").update(enabled=False)
    subject.platform.DEFAULT_SANDBOX_TYPE = ["base", "gui"]
    result = examined(subject, "images")["images"]
    assert result.status is Status.FAIL
    assert result.found == "there is no type 'gui'; base needs none here"
    assert "DEFAULT_SANDBOX_TYPE" in result.fixes[0]


def test_a_slow_engine_is_a_warning():
    assert engine.judge_call(200).status is Status.OK
    assert engine.judge_call(201).status is Status.WARN


def test_a_choice_that_hangs_is_waited_for_once(subject):
    with subject._choosing:
        assert subject.deployer is None

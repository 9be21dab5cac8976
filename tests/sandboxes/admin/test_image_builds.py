"""A build's page: its state as a badge, its log as it was said."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from sandboxes.models.image_build import BuildState
from tests.factories import make_build

pytestmark = pytest.mark.django_db


def page_of(client, build):
    page = client.get(reverse("admin:sandboxes_imagebuild_change", args=[build.pk]))
    return page.content.decode()


def test_the_log_is_shown_as_text(as_user):
    build = make_build(log="Step 1/1 : RUN echo <script>\n", size_bytes=3 * 1024 * 1024)
    page = page_of(as_user(root=True), build)
    assert '<pre class="log">Step 1/1 : RUN echo &lt;script&gt;\n</pre>' in page
    assert "3.0\xa0MB" in page


@pytest.mark.parametrize("state", BuildState)
def test_each_state_has_a_badge(as_user, state):
    page = page_of(as_user(root=True), make_build(state, detail="why"))
    assert f'<span class="state state-{state}" title="why">{state}</span>' in page
    assert "sandboxes/badges.css" in page


def test_a_build_whose_builder_died_is_told_from_one_that_runs(as_user):
    over = timezone.now() - timedelta(seconds=1)
    build = make_build(BuildState.BUILDING, worker_until=over)
    assert "building: given up" in page_of(as_user(root=True), build)

"""Why was this one slow? The page of a sandbox says it."""

from __future__ import annotations

import pytest
from django.urls import reverse

from tests.factories import make_sandbox

pytestmark = pytest.mark.django_db


def test_a_sandbox_shows_its_phases_and_why_it_was_cold(as_user):
    sandbox = make_sandbox(
        timeline={
            "kind": "cold",
            "because": "no warm <one> was ready",
            "phases": [["queued", 1.5], ["started", 250.0]],
        }
    )
    page = as_user("view_sandbox").get(reverse("admin:sandboxes_sandbox_change", args=[sandbox.pk]))
    shown = page.content.decode()
    assert "cold: no warm &lt;one&gt; was ready" in shown
    assert "<td>started</td><td>250.0 ms</td>" in shown


def test_a_sandbox_without_a_timeline_has_a_page_too(as_user):
    page = reverse("admin:sandboxes_sandbox_change", args=[make_sandbox().pk])
    assert as_user(root=True).get(page).status_code == 200

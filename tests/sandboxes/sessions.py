"""What tests of sessions do again and again."""

from __future__ import annotations

from datetime import timedelta

from asgiref.sync import async_to_sync
from django.utils import timezone

from sandboxes import actions, directory, reaper
from sandboxes.models import Sandbox, Session
from sandboxes.states import State
from tests.factories import let_work_behind_end

LONG_AGO = timedelta(days=1)


def let_time_pass(span=LONG_AGO):
    """Move what was noted of sessions and calls into the past, and their answers with it."""
    then = timezone.now() - span
    Session.objects.update(last_active_at=then)
    Sandbox.objects.exclude(last_used_at=None).update(last_used_at=then, claimed_at=then)
    Sandbox.objects.filter(state=State.RUNNING).update(worker="")


def recycle_all():
    """Let every session be idle for a day, and the reaper see that; return its report."""
    let_time_pass()
    report = reaper.reap()
    let_work_behind_end()
    return report


def recycled(caller, key="s", **wish):
    """Create a sandbox in a session and let it be recycled; return its row."""
    sandbox = actions.create(caller, session_key=key, **wish)
    assert sandbox.name in recycle_all().idle
    return Sandbox.objects.get(pk=sandbox.pk)


def touch(caller, identity):
    """Look a sandbox up as a tool call does; return where it is."""
    directory.clear()
    return async_to_sync(directory.find)(caller, identity)


def row_of(place):
    return Sandbox.objects.select_related("session").get(name=place.name)

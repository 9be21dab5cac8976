"""What has outlived a time limit: sandboxes, kept files, records."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.utils import timezone

from sandboxes import actions, ending, heartbeat
from sandboxes.models import Sandbox, Session
from sandboxes.reaper.report import ACTOR, Report
from sandboxes.states import State, StopReason


def expire(report: Report, *, dry_run: bool) -> None:
    """End what has outlived its lifetime."""
    for sandbox in Sandbox.objects.expired():
        report.expired.append(sandbox.name)
        if not dry_run:
            ending.stop_soon(
                sandbox, reason=StopReason.EXPIRED, actor=ACTOR, detail="its lifetime is over"
            )


def recycle(report: Report, *, dry_run: bool) -> None:
    """End what nobody has called for its idle limit; with a session the next touch restores it."""
    seconds = settings.PLATFORM.HEARTBEAT_TIMEOUT
    limit = timedelta(seconds=seconds) if seconds else None
    for sandbox in Sandbox.objects.idle(limit, grace=heartbeat.lag()):
        report.idle.append(sandbox.name)
        if not dry_run:
            actions.recycle(sandbox, actor=ACTOR)


def let_go_of_files(report: Report, *, dry_run: bool) -> None:
    """Restore no more what nobody touched for RECYCLED_KEY_TTL seconds, or has outlived its time."""
    seconds = settings.PLATFORM.RECYCLED_KEY_TTL
    age = timedelta(seconds=seconds) if seconds else None
    if not dry_run:
        Sandbox.objects.unclaimed_files(age).update(stop_reason=StopReason.EXPIRED)


def sweep_files(report: Report, *, dry_run: bool) -> None:
    """Delete the files of what has ended for good since it was kept for a restoring."""
    kept = Sandbox.objects.restorable().values("pk")
    left = Sandbox.objects.filter(state=State.STOPPED, owns_workspace=True).exclude(pk__in=kept)
    for sandbox in [] if dry_run else left.exclude(workspace=""):
        try:
            ending.sweep_files(sandbox)
        except OSError as error:
            report.errors.append(f"{sandbox.name}: {error}")


def forget(report: Report, *, dry_run: bool) -> None:
    """Drop the records of what ended RELEASED_KEY_TTL seconds ago, and empty sessions."""
    seconds = settings.PLATFORM.RELEASED_KEY_TTL
    if not seconds:
        return
    age = timedelta(seconds=seconds)
    rows = Sandbox.objects.forgotten(age)
    if dry_run:
        report.forgotten = rows.count()
        return
    report.forgotten = rows.delete()[1].get("sandboxes.Sandbox", 0)
    Session.objects.filter(sandboxes=None, last_active_at__lt=timezone.now() - age).delete()

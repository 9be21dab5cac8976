"""Rows that keep the constraints."""

from __future__ import annotations

import threading
import time

from django.contrib.auth import get_user_model
from django.utils import timezone

from sandboxes import behind, bookkeeping, lifecycle, registry
from sandboxes.actions.creating import draft
from sandboxes.models import ImageBuild, Sandbox, SandboxType
from sandboxes.models.image_build import BUILD_LEASE, OPEN_BUILDS, BuildState
from sandboxes.models.sandbox import lease_end
from sandboxes.states import ENDED, UNFINISHED, State, StopReason
from sandboxes.tokens import Caller


def let_work_behind_end():
    """Return when what goes on behind an answer in this process has ended."""
    bookkeeping.wait()
    # What starts may have something to remove.
    for executor in (behind._starting, behind._threads):
        # As many as there are threads, so that each has done what it was given before.
        waiters = threading.Barrier(executor._max_workers)
        for task in [executor.submit(waiters.wait, 30) for _ in range(executor._max_workers)]:
            task.result(30)


def make_user(name="alice", **fields):
    return get_user_model().objects.get_or_create(username=name, defaults=fields)[0]


def make_caller(name="alice", **fields):
    user = make_user(name, **fields)
    return Caller(user.pk, user.username, user.is_superuser)


def make_type(name="base"):
    registry.sync()
    return SandboxType.objects.get_or_create(name=name)[0]


def make_sandbox(state=State.RUNNING, **fields):
    defaults = {
        "sandbox_type": fields.pop("sandbox_type", None) or make_type(),
        "state": state,
        "deployer": "fake",
        "image": "image",
        "worker_until": lease_end() if state in UNFINISHED else None,
        "url": "http://127.0.0.1:9" if state in (State.WARM, State.RUNNING) else "",
        "owner": None if state == State.WARM else make_user(),
        "stop_reason": StopReason.RELEASED if state in ENDED else "",
        "stopped_at": timezone.now() if state == State.STOPPED else None,
    }
    return Sandbox.objects.create(**defaults | fields)


def make_warm(count=1, *, sandbox_type=None, **fields):
    """Start warm sandboxes as the keeper does; fields are changed on their rows afterwards."""
    kind = sandbox_type or make_type()
    made = []
    for _ in range(count):
        sandbox = draft(kind)
        sandbox.save(force_insert=True)
        lifecycle.start(sandbox, actor="keeper", deadline=time.monotonic() + 30)
        made.append(sandbox)
    rows = Sandbox.objects.filter(pk__in=[sandbox.pk for sandbox in made])
    if fields:
        rows.update(**fields)
    return list(rows.order_by("pk"))


def make_build(state=BuildState.SUCCEEDED, **fields):
    now, building = timezone.now(), state == BuildState.BUILDING
    defaults = {
        "sandbox_type": fields.pop("sandbox_type", None) or make_type(),
        "state": state,
        "tag": "agentscope/runtime-sandbox-base:latest",
        "digest": "sha256:1234" if state == BuildState.SUCCEEDED else "",
        "requested_by": "shell:alice@here",
        "started_at": None if state == BuildState.QUEUED else now,
        "finished_at": None if state in OPEN_BUILDS else now,
        "worker_until": now + BUILD_LEASE if building else None,
    }
    return ImageBuild.objects.create(**defaults | fields)

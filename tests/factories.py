"""Rows that keep the constraints."""

from __future__ import annotations

from django.contrib.auth import get_user_model
from django.utils import timezone

from sandboxes import registry
from sandboxes.models import Sandbox, SandboxType
from sandboxes.models.sandbox import WORKER_LEASE
from sandboxes.states import State, StopReason
from sandboxes.tokens import Caller


def make_user(name="alice", **fields):
    return get_user_model().objects.get_or_create(username=name, defaults=fields)[0]


def make_caller(name="alice", **fields):
    user = make_user(name, **fields)
    return Caller(user.pk, user.username, user.is_superuser)


def make_type(name="base"):
    registry.sync()
    return SandboxType.objects.get_or_create(name=name)[0]


def make_sandbox(state=State.RUNNING, **fields):
    unfinished = state in (State.PENDING, State.STARTING, State.STOPPING)
    defaults = {
        "sandbox_type": fields.pop("sandbox_type", None) or make_type(),
        "state": state,
        "deployer": "fake",
        "image": "image",
        "worker_until": timezone.now() + WORKER_LEASE if unfinished else None,
        "url": "http://127.0.0.1:9" if state in (State.WARM, State.RUNNING) else "",
        "owner": None if state == State.WARM else make_user(),
        "stop_reason": StopReason.RELEASED if state in (State.STOPPING, State.STOPPED) else "",
        "stopped_at": timezone.now() if state == State.STOPPED else None,
    }
    return Sandbox.objects.create(**defaults | fields)

"""Each named constraint is broken on purpose; the database must refuse by that name."""

from __future__ import annotations

import pytest
from django.apps import apps
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from pools.models import Pool
from sandboxes.models import (
    ApiToken,
    ImageBuild,
    Installation,
    PortLease,
    Sandbox,
    SandboxType,
    Session,
)
from sandboxes.models.image_build import BuildState
from sandboxes.states import State
from tests.factories import make_build, make_sandbox, make_type, make_user

pytestmark = pytest.mark.django_db


def update_sandbox(made_in=State.RUNNING, **fields):
    sandbox = make_sandbox(made_in)
    return lambda: Sandbox.objects.filter(pk=sandbox.pk).update(**fields)


def update_type(**fields):
    kind = make_type()
    return lambda: SandboxType.objects.filter(pk=kind.pk).update(**fields)


def second_lease():
    PortLease.objects.create(port=50000, sandbox=make_sandbox())
    other = make_sandbox()
    return lambda: PortLease.objects.create(port=50000, sandbox=other)


def second_session():
    user = make_user()
    Session.objects.create(owner=user, key="s")
    return lambda: Session.objects.create(owner=user, key="s")


def second_token():
    user = make_user()
    ApiToken.issue(user, "ci")
    return lambda: ApiToken.issue(user, "ci")


def second_installation():
    Installation.current_id()
    return lambda: Installation.objects.create()


def update_build(made_in=BuildState.BUILDING, **fields):
    build = make_build(made_in)
    return lambda: ImageBuild.objects.filter(pk=build.pk).update(**fields)


def second_build():
    make_build(BuildState.QUEUED)
    return lambda: make_build(BuildState.BUILDING)


def small_ceiling():
    kind = make_type()
    return lambda: Pool.objects.create(sandbox_type=kind, target=3, ceiling=2)


def second_restoring():
    old = make_sandbox(State.STOPPED)
    make_sandbox(State.STARTING, restores=old)
    return lambda: make_sandbox(State.STARTING, restores=old)


def broken_pool():
    kind = make_type()
    return lambda: Pool.objects.create(sandbox_type=kind, failures=1)


BREAKS = {
    "build_state_known": lambda: update_build(BuildState.FAILED, state="lost"),
    "build_one_open_per_type": second_build,
    "build_success_has_digest": lambda: update_build(BuildState.SUCCEEDED, digest=""),
    "build_finished_has_time": lambda: update_build(BuildState.FAILED, finished_at=None),
    "build_building_has_lease": lambda: update_build(worker_until=None),
    "pool_target_within_ceiling": small_ceiling,
    "pool_failure_has_error": broken_pool,
    "installation_only_one": second_installation,
    "installation_is_the_one": lambda: lambda: Installation.objects.create(only=False),
    "port_leased_once": second_lease,
    "port_in_range": lambda: lambda: PortLease.objects.create(port=80, sandbox=make_sandbox()),
    "session_key_once_per_owner": second_session,
    "session_key_not_empty": lambda: lambda: Session.objects.create(owner=make_user(), key=""),
    "token_digest_is_sha256": lambda: (
        lambda: ApiToken.objects.create(owner=make_user(), label="x", digest="a pasted secret")
    ),
    "token_label_once_per_owner": second_token,
    "type_security_level_known": lambda: update_type(security_level="none"),
    "type_network_known": lambda: update_type(network="all"),
    "type_timeout_positive": lambda: update_type(timeout_seconds=0),
    "type_lifetime_positive": lambda: update_type(lifetime_seconds=0),
    "type_idle_positive": lambda: update_type(idle_seconds=0),
    "sandbox_frozen_is_warm": lambda: update_sandbox(frozen=True),
    "sandbox_replaced_has_ended": lambda: update_sandbox(replaced_by=make_sandbox()),
    "sandbox_restored_once": second_restoring,
    "sandbox_state_known": lambda: update_sandbox(state="asleep"),
    "sandbox_running_has_owner": lambda: update_sandbox(owner=None),
    "sandbox_warm_has_no_owner": lambda: update_sandbox(State.WARM, owner=make_user()),
    "sandbox_ready_has_url": lambda: update_sandbox(url=""),
    "sandbox_stop_has_reason": lambda: update_sandbox(State.STOPPED, stop_reason=""),
    "sandbox_stopped_has_time": lambda: update_sandbox(State.STOPPED, stopped_at=None),
    "sandbox_unfinished_has_lease": lambda: update_sandbox(worker_until=timezone.now()),
}


def constraint_names():
    return {
        constraint.name
        for app in ("sandboxes", "pools")
        for model in apps.get_app_config(app).get_models()
        for constraint in model._meta.constraints
    }


def test_every_constraint_has_a_way_to_break_it():
    assert constraint_names() == set(BREAKS)


@pytest.mark.parametrize("name", sorted(BREAKS))
def test_the_database_refuses_to_break(name):
    breaking = BREAKS[name]()
    with pytest.raises(IntegrityError) as caught, transaction.atomic():
        breaking()
    if connection.vendor == "postgresql" or "UNIQUE" not in str(caught.value):
        assert name in str(caught.value)

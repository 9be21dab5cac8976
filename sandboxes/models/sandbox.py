from __future__ import annotations

import secrets
from datetime import datetime, timedelta

from django.conf import settings
from django.db import models, transaction
from django.utils import timezone
from django.utils.crypto import salted_hmac

from sandboxes import connections, timeline, workers
from sandboxes.models.event import Event
from sandboxes.models.sandbox_rules import CONSTRAINTS, INDEXES
from sandboxes.models.writing import write_if
from sandboxes.querysets import SandboxQuerySet
from sandboxes.signals import sandbox_moved
from sandboxes.states import (
    ENDED,
    TRANSITIONS,
    UNFINISHED,
    State,
    StateConflict,
    StopReason,
)

ID_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
ID_LENGTH = 25
SPARE = timedelta(seconds=120)
"""What a worker may take longer than CREATE_TIMEOUT before the reaper takes its sandbox over."""


def new_name() -> str:
    """Return CONTAINER_PREFIX_KEY and 25 random lower-case letters and digits."""
    key = "".join(secrets.choice(ID_ALPHABET) for _ in range(ID_LENGTH))
    return f"{settings.PLATFORM.CONTAINER_PREFIX_KEY}{key}"


def full_name(identity: str) -> str:
    """Return the name for an identity: a full name, or one without CONTAINER_PREFIX_KEY."""
    prefix = settings.PLATFORM.CONTAINER_PREFIX_KEY
    if identity.startswith(prefix) and len(identity) == len(prefix) + ID_LENGTH:
        return identity
    return f"{prefix}{identity}"


def lease_end() -> datetime:
    """Return until when a worker that begins a step now holds the sandbox."""
    return timezone.now() + timedelta(seconds=settings.PLATFORM.CREATE_TIMEOUT) + SPARE


def session_lease_end() -> datetime:
    """Return the same of a session's: HEARTBEAT_LOCK_TTL, and no less than the step may take."""
    held = timezone.now() + timedelta(seconds=settings.PLATFORM.HEARTBEAT_LOCK_TTL)
    return max(held, lease_end())


class Sandbox(models.Model):
    """One sandbox, from the wish for it to the proof that it is gone."""

    name = models.CharField(max_length=63, unique=True, default=new_name)
    sandbox_type = models.ForeignKey("sandboxes.SandboxType", on_delete=models.PROTECT)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True
    )
    session = models.ForeignKey(
        "sandboxes.Session",
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="sandboxes",
    )
    state = models.CharField(max_length=8, choices=State, default=State.PENDING)
    stop_reason = models.CharField(max_length=16, choices=StopReason, blank=True)
    detail = models.TextField(blank=True)

    deployer = models.CharField(max_length=20)
    image = models.CharField(max_length=255, blank=True)
    url = models.CharField(max_length=255, blank=True)
    container_id = models.CharField(max_length=128, blank=True)
    workspace = models.CharField(max_length=1024, blank=True)
    owns_workspace = models.BooleanField(default=True)
    """Is the workspace folder ours, to be deleted with the sandbox?"""

    recipe = models.CharField(max_length=64, blank=True)
    """What its type and the settings said when it was made, as a digest: see recipe.py."""

    image_id = models.CharField(max_length=128, blank=True)
    """The engine's id of its image, noted for warm ones: a tag may move on."""

    can_bind = models.BooleanField(default=False)
    """Can its guest be given an environment after it was started?"""

    frozen = models.BooleanField(default=False)
    """Are its processes paused while it is warm?"""

    was_given_files = models.BooleanField(default=False)
    """Did its caller send files with the create? They are kept in its workspace and nowhere else."""

    environment = models.JSONField(default=dict, blank=True)
    labels = models.JSONField(default=dict, blank=True)
    meta = models.JSONField(default=dict, blank=True)
    timeline = models.JSONField(default=dict, blank=True)
    """How it came up: see timeline.py."""

    timeout_seconds = models.PositiveIntegerField(default=60)
    idle_limit = models.DurationField(null=True, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    restores = models.ForeignKey(
        "self", on_delete=models.SET_NULL, null=True, blank=True, related_name="restorations"
    )
    """The ended one whose caller this one is to serve instead."""

    replaced_by = models.ForeignKey(
        "self", on_delete=models.SET_NULL, null=True, blank=True, related_name="replaces"
    )
    """The one that its callers are led to now."""

    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(default=timezone.now, editable=False)
    claimed_at = models.DateTimeField(null=True, blank=True)
    first_used_at = models.DateTimeField(null=True, blank=True)
    first_call_seconds = models.FloatField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    stopped_at = models.DateTimeField(null=True, blank=True)
    worker = models.CharField(max_length=64, blank=True)
    """
    The process that is at a step now (see workers.py), or has lent it and not said so yet.
    """

    worker_until = models.DateTimeField(null=True, blank=True)

    objects = SandboxQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name_plural = "sandboxes"
        permissions = [("stop_sandbox", "Can stop a sandbox")]
        indexes = INDEXES
        constraints = CONSTRAINTS

    def __str__(self) -> str:
        return self.name

    @property
    def key(self) -> str:
        """The name without its prefix: session_id on the wire."""
        return self.name.removeprefix(settings.PLATFORM.CONTAINER_PREFIX_KEY)

    @property
    def guest_secret(self) -> str:
        """The guest's own token: derived, so that no table, log or backup holds it."""
        return salted_hmac("sandboxes.guest_secret", self.name, algorithm="sha256").hexdigest()

    @property
    def desktop_credential(self) -> str:
        """What opens this sandbox's desktop and nothing else (runtime_token on the wire)."""
        return salted_hmac("sandboxes.desktop", self.name, algorithm="sha256").hexdigest()[:32]

    @property
    def whole_timeline(self) -> dict[str, object]:
        """How it came up, up to its first call: see timeline.py."""
        whole = {**self.timeline, "phases": list(self.timeline.get("phases", ()))}
        if self.first_call_seconds is not None:
            timeline.note(whole, "first call", self.first_call_seconds)
        return whole

    @property
    def can_be_restored(self) -> bool:
        """
        Has it ended in a way that its caller need not notice: the next touch continues it.

        It was recycled because its session was idle; or it died after it was lent and before
        it was used. Its workspace and environment are kept until then; files that it was given
        are gone with it where this host has no workspace of it.
        """
        if self.state not in ENDED or self.replaced_by_id or self.owner_id is None:
            return False
        if self.stop_reason == StopReason.IDLE:
            return self.session_id is not None
        if self.was_given_files and not self.workspace:
            return False
        return (
            self.stop_reason == StopReason.LOST and bool(self.claimed_at) and not self.first_used_at
        )

    def _lease_end(self, fields: dict[str, object]) -> datetime:
        """Return until when the worker of the next step holds it; a session's are held apart."""
        if self.restores_id or fields.get("stop_reason") == StopReason.IDLE:
            return session_lease_end()
        return lease_end()

    def move_to(self, new_state: State, *, actor: str, **fields: object) -> None:
        """
        Move to new_state, saving fields with it and writing an Event.

        Raise StateConflict if another process moved this sandbox first, and ValueError for a
        way that TRANSITIONS does not know.
        """
        old_state = State(self.state)
        if new_state not in TRANSITIONS[old_state]:
            raise ValueError(f"A {old_state} sandbox cannot become {new_state}.")
        now = timezone.now()
        changed: dict[str, object] = {
            "state": new_state,
            "updated_at": now,
            "worker_until": self._lease_end(fields) if new_state in UNFINISHED else None,
            "worker": workers.current() if new_state in UNFINISHED else "",
            **fields,
        }
        if new_state != State.WARM:
            changed["frozen"] = False
        # Without a savepoint of its own, which costs as much as the change.
        with connections.in_turn(), transaction.atomic(savepoint=False):
            moved = write_if(Sandbox, self.pk, changed, "state = %s", [old_state])
            if moved:
                Event.objects.create(
                    sandbox=self,
                    old_state=old_state,
                    new_state=new_state,
                    reason=str(fields.get("stop_reason", "")),
                    actor=actor,
                    detail=str(fields.get("detail", "")),
                )
                transaction.on_commit(lambda: sandbox_moved.send(type(self), sandbox=self))
        if not moved:
            # Outside: nothing was written, so a caller's transaction is still good.
            raise StateConflict(f"{self.name} is no longer {old_state}.")
        for name, value in changed.items():
            setattr(self, name, value)

from __future__ import annotations

from datetime import timedelta

from django.db import IntegrityError, models, transaction
from django.db.models import Q
from django.utils import timezone

from sandboxes.states import StateConflict

BUILD_LEASE = timedelta(seconds=30)
"""How long a builder may be silent before its build counts as given up."""


class BuildState(models.TextChoices):
    """Where an image build stands."""

    QUEUED = "queued"
    """Asked for; nobody has begun."""

    BUILDING = "building"
    """A builder is at it, and renews its lease."""

    SUCCEEDED = "succeeded"
    """The image was checked and has the tag."""

    FAILED = "failed"
    """It was not; the tag stays where it was."""

    CANCELLED = "cancelled"
    """Somebody ended it on the way; the tag stays where it was."""


BUILD_TRANSITIONS: dict[BuildState, frozenset[BuildState]] = {
    BuildState.QUEUED: frozenset({BuildState.BUILDING, BuildState.CANCELLED}),
    BuildState.BUILDING: frozenset({BuildState.SUCCEEDED, BuildState.FAILED, BuildState.CANCELLED}),
    BuildState.SUCCEEDED: frozenset(),
    BuildState.FAILED: frozenset(),
    BuildState.CANCELLED: frozenset(),
}
OPEN_BUILDS = frozenset(state for state, ways in BUILD_TRANSITIONS.items() if ways)


class BuildInProgress(Exception):
    """The type's image is being built already; the sentence says by whom and since when."""


class ImageBuildQuerySet(models.QuerySet):
    """Image builds; every question narrows the set it is asked of."""

    def open(self) -> ImageBuildQuerySet:
        return self.filter(state__in=OPEN_BUILDS)

    def abandoned(self) -> ImageBuildQuerySet:
        """Those whose builder died on the way."""
        return self.filter(state=BuildState.BUILDING, worker_until__lt=timezone.now())

    def fail_abandoned(self) -> int:
        """Close what died builders left open; return how many. Anyone may call it at any time."""
        return self.abandoned().update(
            state=BuildState.FAILED,
            worker_until=None,
            finished_at=timezone.now(),
            detail=(
                f"Its builder was not heard of for {BUILD_LEASE.seconds} s: it was killed, or "
                f"lost the database. Build again; what it left is removed first."
            ),
        )

    def begin(self, sandbox_type: models.Model, *, tag: str, requested_by: str) -> ImageBuild:
        """
        Return a BUILDING row for the type: the queued one if there is one, else a new one.

        Raise BuildInProgress while somebody else builds the type.
        """
        of_type = self.filter(sandbox_type=sandbox_type)
        of_type.fail_abandoned()
        try:
            with transaction.atomic():
                if queued := of_type.filter(state=BuildState.QUEUED).first():
                    queued.move_to(BuildState.BUILDING, tag=tag)
                    return queued
                now = timezone.now()
                return self.create(
                    sandbox_type=sandbox_type,
                    state=BuildState.BUILDING,
                    tag=tag,
                    requested_by=requested_by,
                    created_at=now,
                    started_at=now,
                    worker_until=now + BUILD_LEASE,
                )
        except (IntegrityError, StateConflict) as error:
            other = of_type.open().first()
            if other is None:
                raise BuildInProgress(
                    f"A build of {sandbox_type} ended this very moment; try again."
                ) from error
            raise BuildInProgress(
                f"{other.requested_by} has been building {sandbox_type} since "
                f"{other.started_at or other.created_at:%Y-%m-%d %H:%M:%S} UTC (build "
                f"{other.pk} in the admin): wait for it or end it. If it was killed, the next "
                f"build may begin {BUILD_LEASE.seconds} s later."
            ) from error


class ImageBuild(models.Model):
    """One attempt to make a type's image: who asked for it, what was said, how it ended."""

    sandbox_type = models.ForeignKey(
        "sandboxes.SandboxType", on_delete=models.PROTECT, related_name="image_builds"
    )
    state = models.CharField(max_length=9, choices=BuildState, default=BuildState.QUEUED)
    tag = models.CharField(max_length=255, help_text="The name that the image is to get.")
    digest = models.CharField(max_length=100, blank=True, help_text="The image's id.")
    size_bytes = models.PositiveBigIntegerField(null=True, blank=True)
    log = models.TextField(blank=True)
    detail = models.TextField(blank=True, help_text="Why it failed.")
    requested_by = models.CharField(
        max_length=150, help_text="Who asked for it: shell:USER@HOST, admin:NAME."
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    worker_until = models.DateTimeField(
        null=True, blank=True, help_text="Its builder renews this; once over, it was given up."
    )

    objects = ImageBuildQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=BuildState.values), name="build_state_known"
            ),
            models.UniqueConstraint(
                fields=["sandbox_type"],
                condition=Q(state__in=sorted(OPEN_BUILDS)),
                name="build_one_open_per_type",
            ),
            models.CheckConstraint(
                condition=~Q(state=BuildState.SUCCEEDED) | ~Q(digest=""),
                name="build_success_has_digest",
            ),
            models.CheckConstraint(
                condition=(
                    Q(state__in=sorted(OPEN_BUILDS), finished_at__isnull=True)
                    | ~Q(state__in=sorted(OPEN_BUILDS)) & Q(finished_at__isnull=False)
                ),
                name="build_finished_has_time",
            ),
            models.CheckConstraint(
                condition=(
                    Q(
                        state=BuildState.BUILDING,
                        started_at__isnull=False,
                        worker_until__isnull=False,
                    )
                    | ~Q(state=BuildState.BUILDING) & Q(worker_until__isnull=True)
                ),
                name="build_building_has_lease",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.tag} ({self.state})"

    @property
    def is_abandoned(self) -> bool:
        """Its builder's lease is over, and nobody has closed it yet."""
        return self.worker_until is not None and self.worker_until < timezone.now()

    def renew(self, **fields: object) -> bool:
        """Renew the lease, saving fields with it; False if it is no longer its builder's."""
        mine = ImageBuild.objects.filter(pk=self.pk, state=BuildState.BUILDING)
        return mine.update(worker_until=timezone.now() + BUILD_LEASE, **fields) == 1

    def move_to(self, new_state: BuildState, **fields: object) -> None:
        """
        Move to new_state, saving fields with it.

        Raise StateConflict if another process moved this build first, and ValueError for a way
        that BUILD_TRANSITIONS does not know.
        """
        old_state = BuildState(self.state)
        if new_state not in BUILD_TRANSITIONS[old_state]:
            raise ValueError(f"A build that is {old_state} cannot become {new_state}.")
        now = timezone.now()
        changed: dict[str, object] = {"state": new_state, "worker_until": None, **fields}
        if new_state == BuildState.BUILDING:
            changed |= {"started_at": now, "worker_until": now + BUILD_LEASE}
        else:
            changed |= {"finished_at": now}
        guarded = ImageBuild.objects.filter(pk=self.pk, state=old_state)
        if guarded.update(**changed) != 1:
            raise StateConflict(f"Build {self.pk} of {self.tag} is no longer {old_state}.")
        for name, value in changed.items():
            setattr(self, name, value)

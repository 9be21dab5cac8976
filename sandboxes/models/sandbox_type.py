from __future__ import annotations

from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q

from sandboxes.environment import check_environment


class SecurityLevel(models.TextChoices):
    """How tightly sandboxes of a type are held; the README says what each level allows."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class NetworkChoice(models.TextChoices):
    """What sandboxes of a type may reach."""

    DEFAULT = "", "what the deployer gives by default"
    NONE = "none", "nothing"
    OUTBOUND = "outbound", "the network outside"


class SandboxType(models.Model):
    """A kind of sandbox that can be asked for: its image, limits, security and environment."""

    name = models.SlugField(max_length=40, unique=True)
    description = models.TextField(blank=True)
    image = models.CharField(
        max_length=255,
        blank=True,
        help_text="Empty: REGISTRY/NAMESPACE/runtime-sandbox-NAME:TAG from the settings.",
    )
    runs_without_image = models.BooleanField(
        default=False, help_text="The local deployer, which has no images, can run it too."
    )
    enabled = models.BooleanField(default=True)
    built_in = models.BooleanField(default=False, editable=False)
    cpus = models.FloatField(null=True, blank=True, validators=[MinValueValidator(0.01)])
    memory_mb = models.PositiveIntegerField(
        null=True, blank=True, validators=[MinValueValidator(16)]
    )
    processes = models.PositiveIntegerField(
        null=True, blank=True, validators=[MinValueValidator(8)]
    )
    timeout_seconds = models.PositiveIntegerField(
        null=True, blank=True, help_text="For one tool call. Empty: RUNTIME_SANDBOX_TIMEOUT."
    )
    lifetime_seconds = models.PositiveIntegerField(
        null=True, blank=True, help_text="After which a lent one ends, used or not. Empty: never."
    )
    idle_seconds = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="Without a call after which a lent one ends. Empty: HEARTBEAT_TIMEOUT, which "
        "counts for sandboxes of a session only.",
    )
    security_level = models.CharField(
        max_length=6, choices=SecurityLevel, default=SecurityLevel.MEDIUM
    )
    network = models.CharField(
        max_length=8, choices=NetworkChoice, default=NetworkChoice.DEFAULT, blank=True
    )
    environment = models.JSONField(
        default=dict, blank=True, help_text='Variables and their values: {"LANG": "C.UTF-8"}.'
    )
    runtime_config = models.JSONField(
        default=dict, blank=True, help_text="What the deployer is told beside the limits."
    )

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(security_level__in=SecurityLevel.values),
                name="type_security_level_known",
            ),
            models.CheckConstraint(
                condition=Q(network__in=NetworkChoice.values), name="type_network_known"
            ),
            models.CheckConstraint(
                condition=Q(timeout_seconds__isnull=True) | Q(timeout_seconds__gte=1),
                name="type_timeout_positive",
            ),
            models.CheckConstraint(
                condition=Q(lifetime_seconds__isnull=True) | Q(lifetime_seconds__gte=1),
                name="type_lifetime_positive",
            ),
            models.CheckConstraint(
                condition=Q(idle_seconds__isnull=True) | Q(idle_seconds__gte=1),
                name="type_idle_positive",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def ceiling(self) -> int | None:
        """How many sandboxes of it there may be at most, as its pool says now; None: no limit."""
        # The pool's model stands in a package above this one, which adds the relation.
        kind = type(self).objects.filter(pk=self.pk)
        return kind.values_list("pool__ceiling", flat=True).first()

    def clean(self) -> None:
        errors = {}
        for field in ("environment", "runtime_config"):
            # An emptied field of a form.
            if getattr(self, field) in (None, ""):
                setattr(self, field, {})
        try:
            check_environment(self.environment)
        except ValueError as error:
            errors["environment"] = str(error)
        if not isinstance(self.runtime_config, dict):
            errors["runtime_config"] = "The runtime config must be an object of names and values."
        if errors:
            raise ValidationError(errors)

from __future__ import annotations

import hashlib
import secrets

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.utils import timezone


class ApiToken(models.Model):
    """A secret that lets a program act for a user. Only its digest is kept."""

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    label = models.CharField(max_length=100)
    prefix = models.CharField(max_length=8, editable=False)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(digest__regex=r"^[0-9a-f]{64}$"), name="token_digest_is_sha256"
            ),
            models.UniqueConstraint(
                fields=["owner", "label"],
                condition=Q(revoked_at__isnull=True),
                name="token_label_once_per_owner",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.label} ({self.prefix}…)"

    def clean(self) -> None:
        # The constraint asks for revoked_at too, which no form has, so forms do not see it.
        same = ApiToken.objects.filter(owner_id=self.owner_id, label=self.label, revoked_at=None)
        if self.revoked_at is None and same.exclude(pk=self.pk).exists():
            raise ValidationError(
                {"label": "This owner has a token of that label: choose another, or revoke it."}
            )

    @staticmethod
    def digest_of(secret: str) -> str:
        """Return the hex SHA-256 of a secret; its 256 random bits need no salt."""
        return hashlib.sha256(secret.encode()).hexdigest()

    @classmethod
    def issue(cls, owner: models.Model, label: str) -> tuple[ApiToken, str]:
        """Make a token and return it with its secret, which cannot be read again."""
        secret = f"sbx_{secrets.token_urlsafe(32)}"
        token = cls.objects.create(
            owner=owner, label=label, prefix=secret[:8], digest=cls.digest_of(secret)
        )
        return token, secret

from __future__ import annotations

import uuid

from django.db import models


class Installation(models.Model):
    """
    One row: this database's own id.

    Deployers write it on everything they start, so that two servers which share an engine
    never touch each other's sandboxes.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    only = models.BooleanField(default=True, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["only"], name="installation_only_one"),
            models.CheckConstraint(condition=models.Q(only=True), name="installation_is_the_one"),
        ]

    def __str__(self) -> str:
        return str(self.id)

    @classmethod
    def current_id(cls) -> str:
        """Return the id, making the row on the first call."""
        return str(cls.objects.get_or_create(only=True)[0].id)

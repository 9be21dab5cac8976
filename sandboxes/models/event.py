from __future__ import annotations

from django.db import models
from django.utils import timezone


class Event(models.Model):
    """Something that happened to a sandbox; written once, never changed."""

    sandbox = models.ForeignKey(
        "sandboxes.Sandbox", on_delete=models.CASCADE, related_name="events"
    )
    at = models.DateTimeField(default=timezone.now, editable=False, db_index=True)
    old_state = models.CharField(max_length=8, blank=True)
    new_state = models.CharField(max_length=8)
    reason = models.CharField(max_length=16, blank=True)
    actor = models.CharField(max_length=150, help_text="Who did it: user:NAME, server, reaper.")
    detail = models.TextField(blank=True)

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return f"{self.old_state or 'nothing'} → {self.new_state}"

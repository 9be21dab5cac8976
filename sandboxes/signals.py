"""What other parts of the process may want to know about a sandbox."""

from __future__ import annotations

from django.dispatch import Signal

sandbox_moved = Signal()
"""Sent after the commit that changed a sandbox's state; carries sandbox, a Sandbox."""

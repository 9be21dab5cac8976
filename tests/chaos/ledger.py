"""What a client was told about a sandbox, and what it may therefore expect of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


class Broken(Exception):
    """A promise was broken; the sentence says which."""


@dataclass
class Held:
    """One sandbox of a client: the lines that it acknowledged must stay in it."""

    name: str
    session: str = ""
    environment: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    written: list[str] = field(default_factory=list)
    perhaps: set[str] = field(default_factory=set)
    """Lines whose writing was not acknowledged: they may be there or not."""

    since: float = field(default_factory=time.monotonic)
    perhaps_released: bool = False
    halted: bool = False
    """Was it told to stop, with or without an answer?"""

    rests_until: float = 0.0

    def compare(self, text: str) -> None:
        """Raise Broken if a line that was acknowledged is not there, or one never written is."""
        there = text.split()
        lost = [line for line in self.written if line not in there]
        invented = set(there) - set(self.written) - self.perhaps
        if lost or invented:
            raise Broken(
                f"{self.name} (session {self.session or 'none'}) lost {lost} and has {invented} "
                f"that nobody wrote; it has {len(there)} lines"
            )

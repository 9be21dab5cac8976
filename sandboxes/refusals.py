"""What a caller can be refused for, and the HTTP status that says so."""

from __future__ import annotations


class Refusal(Exception):
    """Something the caller asked for is not to be had; the sentence says what to change."""

    status = 422
    field = ""


class Refused(Refusal):
    """The wish cannot be met; field names what to change in the request, if anything."""

    def __init__(self, sentence: str, *, field: str = "") -> None:
        super().__init__(sentence)
        self.field = field


class Unknown(Refusal):
    """No sandbox of this caller has that identity."""

    status = 404


class NotRunning(Refusal):
    """The sandbox is not in a state for this; the sentence says what would change that."""

    status = 409


class Ended(Refusal):
    """The sandbox is there no more; the sentence says why."""

    status = 410


class NotReachable(Refusal):
    """The sandbox lives, but its guest does not answer."""

    status = 502


class TooSlow(Refusal):
    """The guest took the call and did not answer in time."""

    status = 504


class CapReached(Refusal):
    """MAX_SANDBOX_INSTANCES sandboxes exist already."""

    status = 503

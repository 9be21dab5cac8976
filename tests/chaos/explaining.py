"""Each failure that a client saw belongs to a class, or it is a fault."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass

from tests.chaos.calls import NO_ANSWER, Failed
from tests.chaos.ledger import Held
from tests.chaos.outages import Outages


@dataclass(frozen=True)
class Failure:
    """A failed call, with what its client knew of the sandbox then."""

    call: Failed
    held_since: float
    halted: bool
    perhaps_released: bool
    wall_clock: float

    @classmethod
    def of(cls, call: Failed, held: Held | None) -> Failure:
        if held is None:
            return cls(call, call.since, False, False, time.time())
        return cls(call, held.since, held.halted, held.perhaps_released, time.time())

    def __str__(self) -> str:
        moment = time.strftime("%H:%M:%S", time.gmtime(self.wall_clock))
        return f"{moment} {self.call}"


@dataclass(frozen=True)
class Class:
    """
    Failures that are to be expected: of these statuses, with these words, while a part is away.

    Without parts it may be at any time. ever_since: the outage may have been at any time since the client had the sandbox.
    """

    name: str
    statuses: frozenset[int]
    words: re.Pattern[str]
    parts: frozenset[str]
    ever_since: bool = False

    def covers(self, failure: Failure, outages: Outages) -> bool:
        call = failure.call
        since = failure.held_since if self.ever_since else call.since
        return (
            call.status in self.statuses
            and bool(self.words.search(call.detail))
            and (not self.parts or outages.touch(self.parts, since, call.until))
        )


def _class(name: str, statuses: set[int], words: str, *parts: str, **options: bool) -> Class:
    return Class(name, frozenset(statuses), re.compile(words), frozenset(parts), **options)


TOO_BUSY = r"Too many sandboxes are being started|did not answer in time; a larger CREATE_TIMEOUT"

CLASSES = (
    _class(
        "no answer: the server or its worker was killed",
        {NO_ANSWER},
        r"Connection|RemoteDisconnected|IncompleteRead|JSONDecodeError",
        "server",
        "web worker",
    ),
    _class("409: it was recycled at this moment", {409}, r"put to rest or replaced at this moment"),
    _class("503: the server was closing", {503}, r"server is closing", "server"),
    _class("503: no database", {503}, r"database did not answer", "postgres"),
    _class("503: no engine", {503}, r"No Docker engine|Docker engine did not", "engine"),
    _class(
        "502: the sandbox cannot be reached",
        {502},
        r"cannot be reached|does not answer",
        "engine",
        "containers",
    ),
    _class("200: what ran in the sandbox was killed", {200}, r"SIGKILL|SIGTERM", "containers"),
    _class("503: a start was broken off", {503}, r"could not be started|Sandbox \S+: ", "engine"),
    _class("503: CREATE_TIMEOUT was over: the machine was too busy", {503}, TOO_BUSY),
    _class("410: the sandbox was lost", {410}, r"\(lost\)", "containers", ever_since=True),
)
"""What a caller may be told, and which part must have been away then."""


def explain(failure: Failure, outages: Outages) -> str | None:
    """Return the class of a failure, None if nothing explains it."""
    for one in CLASSES:
        if one.covers(failure, outages):
            return one.name
    if failure.halted and failure.call.status == 409:
        return "409: its own stop or start was broken off before"
    if failure.perhaps_released and failure.call.status == 410 and "(released)" in str(failure):
        return "410: its own release was broken off before"
    return None


def explain_all(failures: list[Failure], outages: Outages) -> tuple[Counter[str], list[Failure]]:
    """Return how many failures each class has, and those that none explains."""
    classes: Counter[str] = Counter()
    faults = []
    for failure in failures:
        name = explain(failure, outages)
        if name:
            classes[name] += 1
        else:
            faults.append(failure)
    return classes, faults

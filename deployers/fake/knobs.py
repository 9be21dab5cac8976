"""What makes a fake deployer fail on demand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from deployers.base import Deployer

Failure = Exception | type[Exception] | Callable[[str], Exception | None] | None
"""An error to raise each time, or a function from the sandbox's name to an error or None."""


class Failing(Deployer):
    """Count each verb, and raise what its knob says."""

    calls: Counter[str]

    def _enter(self, verb: str, failure: Failure = None, name: str = "") -> None:
        self.calls[verb] += 1
        self._fail(failure, name)

    @staticmethod
    def _fail(failure: Failure, name: str) -> None:
        if isinstance(failure, type) and issubclass(failure, Exception):
            raise failure(f"The fake deployer was told to fail on {name}.")
        if callable(failure):
            failure = failure(name)
        if failure is not None:
            raise failure

"""The cache that workers share: Redis, left alone for a while when it fails or takes long."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from django_redis.cache import RedisCache
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

SLOW_SECONDS = 0.25
"""An answer that takes longer is slow: the database would have had it sooner."""

SLOW_IN_A_ROW = 3
"""So many slow ones count as a failure; one may be this process, that waited for a core."""

PAUSE_SECONDS = 3.0
"""How long Redis is not asked after a failure; then one caller tries it for all."""


class Breaker:
    """
    Whether this process asks one Redis now.

    A Redis that hangs costs each call its time limit. So the first one that fails keeps the
    others away, until a call that is let through after PAUSE_SECONDS has an answer.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed_until = 0.0
        self._failing = False
        self._slow = 0

    def call(self, ask: Callable[[], Result], otherwise: Result) -> Result:
        """Return what ask returns; otherwise, where it fails or Redis is not asked now."""
        if not self._may_try():
            return otherwise
        begun = time.monotonic()
        try:
            answer = ask()
        except (RedisError, OSError) as error:
            self._failed(str(error))
            return otherwise
        seconds = time.monotonic() - begun
        self._slow = self._slow + 1 if seconds > SLOW_SECONDS else 0
        if self._slow >= SLOW_IN_A_ROW or (self._slow and self._failing):
            self._failed(f"it took {seconds:.2f} s to answer")
        elif not self._slow:
            self._answered()
        return answer

    def _may_try(self) -> bool:
        if not self._failing:
            return True
        with self._lock:
            now = time.monotonic()
            if now < self._closed_until:
                return False
            self._closed_until = now + PAUSE_SECONDS
            return True

    def _failed(self, why: str) -> None:
        with self._lock:
            self._closed_until = time.monotonic() + PAUSE_SECONDS
            begins, self._failing = not self._failing, True
        if begins:
            logger.warning("Redis does not answer, and the database is asked in its place: %s", why)

    def _answered(self) -> None:
        if not self._failing:
            return
        with self._lock:
            ends, self._failing = self._failing, False
        if ends:
            logger.warning("Redis answers again")


_breakers: dict[str, Breaker] = {}
"""One for each Redis, however many caches and threads use it."""


class SharedCache(RedisCache):
    """
    django-redis whose look-ups find nothing, and whose notes are dropped, while Redis is away.

    The database can answer whatever the cache holds, so that is a warning and no error.
    """

    def __init__(self, server: str, params: dict[str, Any]) -> None:
        super().__init__(server, params)
        self._breaker = _breakers.setdefault(server, Breaker())

    def get(self, key: Any, default: Any = None, *args: Any, **options: Any) -> Any:
        ask = super().get
        return self._breaker.call(lambda: ask(key, default, *args, **options), default)

    def get_many(self, *args: Any, **options: Any) -> Mapping[str, Any]:
        ask = super().get_many
        return self._breaker.call(lambda: ask(*args, **options), {})

    def set(self, *args: Any, **options: Any) -> bool:
        ask = super().set
        return self._breaker.call(lambda: ask(*args, **options), False)

    def add(self, *args: Any, **options: Any) -> bool:
        ask = super().add
        return self._breaker.call(lambda: ask(*args, **options), False)

"""Redis, over the very connection that the shared cache uses."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any

from django_redis import get_redis_connection
from redis import exceptions

from sandboxplatform.doctor import clock
from sandboxplatform.doctor.disk import readable
from sandboxplatform.doctor.findings import Finding, fail, ok, skip, warn
from sandboxplatform.doctor.subject import Subject

SLOW_MS = 20
PROBE_SECONDS = 5
PINGS = 5


def look(subject: Subject) -> Iterator[Finding]:
    platform = subject.platform
    if not platform.REDIS_ENABLED:
        yield skip("REDIS_ENABLED is False")
        return
    where = f"{platform.REDIS_SERVER}:{platform.REDIS_PORT}"
    try:
        client = get_redis_connection("default")
        yield from _latency(client, where)
        yield _write(client, f"{platform.REDIS_CONTAINER_POOL_KEY}:doctor:{secrets.token_hex(8)}")
        yield from _facts(client)
    except (exceptions.AuthenticationError, exceptions.AuthorizationError) as error:
        yield fail(
            f"Redis at {where} refuses the login: {error}",
            "Set REDIS_USER and REDIS_PASSWORD to a user of that Redis (its `requirepass`, or one "
            "of `ACL LIST`).",
        )
    except exceptions.NoPermissionError as error:
        yield fail(
            f"Redis at {where} knows the user, but forbids: {error}",
            "Allow it, e.g. `ACL SETUSER NAME on ~* +@all`, or set REDIS_USER to another user.",
        )
    except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
        yield fail(
            f"no Redis answers at {where}: {error}",
            "Start it, or set REDIS_SERVER and REDIS_PORT to where it listens; with WORKERS=1 "
            "REDIS_ENABLED=False will do.",
        )
    except exceptions.RedisError as error:
        yield fail(
            f"Redis at {where} answers with an error: {error}",
            "See REDIS_DB (is there a database of that number?), the memory that it has left, and "
            "whether it is a replica, which takes no writes.",
        )


def _latency(client: Any, where: str) -> Iterator[Finding]:
    client.ping()  # the first one connects
    took = []
    for _ in range(PINGS):
        begun = time.monotonic()
        client.ping()
        took.append((time.monotonic() - begun) * 1000)
    milliseconds = sorted(took)[PINGS // 2]
    if milliseconds > SLOW_MS:
        yield warn(
            f"{where} answers in {milliseconds:.0f} ms",
            "Tool calls wait for it: set REDIS_SERVER to a Redis nearer to this server.",
        )
    else:
        yield ok(f"{where} answers in {milliseconds:.1f} ms")


def _write(client: Any, key: str) -> Finding:
    client.set(key, b"probe", ex=PROBE_SECONDS)
    kept = client.get(key)
    client.delete(key)
    if kept == b"probe":
        return ok("writes")
    return fail(
        "what was written could not be read back",
        "Set REDIS_SERVER to the primary of a replicated Redis, not to a replica.",
    )


def _facts(client: Any) -> Iterator[Finding]:
    try:
        found, (seconds, microseconds) = client.info(), client.time()
    except exceptions.NoPermissionError as error:
        yield ok(f"version and clock are not told to this user ({error})")
        return
    yield ok(f"version {found.get('redis_version', 'unknown')}")
    most, policy = int(found.get("maxmemory", 0)), found.get("maxmemory_policy", "")
    if most and policy == "noeviction":
        yield warn(
            f"maxmemory is {readable(most)} with the policy noeviction: once full, it takes no more "
            f"look-ups",
            "Set its maxmemory-policy to volatile-ttl or allkeys-lru; what is dropped is asked of "
            "the database again.",
        )
    yield clock.judge("Redis", seconds + microseconds / 1e6 - time.time())

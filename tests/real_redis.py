"""A real Redis with an ACL user, in a folder of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ports import free_port, is_served
from tests.waiting import wait_until


@contextmanager
def running_redis(
    folder: Path, more: str = ""
) -> Iterator[tuple[dict[str, str], subprocess.Popen]]:
    """
    Yield the settings of one that only its ACL user may use, and its process.

    more are further lines of its configuration.
    """
    port = free_port()
    config = folder / "redis.conf"
    config.write_text(
        f"bind 127.0.0.1\nport {port}\nsave ''\ndir {folder}\n"
        "user default off\nuser worker on >s3cret ~* &* +@all\n"
        f"{more}"
    )
    process = subprocess.Popen(
        ["redis-server", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    settings = {
        "REDIS_ENABLED": "True",
        "REDIS_SERVER": "127.0.0.1",
        "REDIS_PORT": str(port),
        "REDIS_USER": "worker",
        "REDIS_PASSWORD": "s3cret",
    }
    try:
        wait_until(lambda: is_served(port))
        yield settings, process
    finally:
        process.terminate()
        process.wait(10)


def redis_cli(settings, *command):
    secret = ("--pass", "s3cret", "--no-auth-warning")
    done = subprocess.run(
        ["redis-cli", "-p", settings["REDIS_PORT"], "--user", "worker", *secret, *command],
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    return done.stdout

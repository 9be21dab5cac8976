"""
Which real services this machine offers to the tests.

A missing one skips the tests marked with its name, with the reason printed; naming it in
REQUIRE=docker,redis,… turns the skip into a failure, so that CI cannot stay silent.
"""

from __future__ import annotations

import functools
import gc
import importlib.util
import os
import shutil
import subprocess
import warnings


def _missing_docker() -> str | None:
    import docker

    try:
        client = docker.from_env(timeout=5)
    except docker.errors.DockerException as error:
        reason = f"no Docker engine answers: {error}"
        with warnings.catch_warnings():
            # The SDK forgets to close the socket that it could not use.
            warnings.simplefilter("ignore", ResourceWarning)
            del error
            gc.collect()
        return reason
    try:
        client.images.get("debian:bookworm-slim")
    except docker.errors.ImageNotFound:
        return "the image debian:bookworm-slim is not in the Docker engine (docker pull it)"
    finally:
        client.close()
    return None


def _missing_base_image() -> str | None:
    if reason := _missing_docker():
        return reason
    import docker

    client = docker.from_env(timeout=5)
    try:
        client.images.get(
            os.environ.get("TEST_BASE_IMAGE", "agentscope/runtime-sandbox-base:latest")
        )
    except docker.errors.ImageNotFound:
        return "the base image is not built (python manage.py buildimage base)"
    finally:
        client.close()
    return None


def _missing_bubblewrap() -> str | None:
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        return "bwrap is not installed (apt-get install bubblewrap)"
    command = [bwrap, "--unshare-user", "--unshare-net", "--ro-bind", "/", "/", "true"]
    tried = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    return None if tried.returncode == 0 else f"bwrap does not work here: {tried.stderr.strip()}"


def _missing_redis() -> str | None:
    if shutil.which("redis-server"):
        return None
    return "redis-server is not installed (apt-get install redis-server)"


def _missing_postgres() -> str | None:
    if os.environ.get("TEST_DATABASE_URL", "").startswith("postgres"):
        return None
    return "TEST_DATABASE_URL names no PostgreSQL database (.ci/with-postgres)"


def _missing_sdk() -> str | None:
    if importlib.util.find_spec("agentscope_runtime"):
        return None
    return "agentscope-runtime is not installed (pip install -r tests/requirements.txt)"


def _missing_chaos() -> str | None:
    from tests.chaos import daemons, isolation

    if "chaos" not in required():
        return "it takes minutes and kills things, and is run when asked for (make chaos)"
    for program, package in (("dockerd", "docker.io"), ("ip", "iproute2")):
        if shutil.which(program) is None:
            return f"{program} is not installed (apt-get install {package})"
    if daemons.postgres_programs() is None:
        return "PostgreSQL is not installed (apt-get install postgresql)"
    return isolation.missing()


CHECKS = {
    "docker": _missing_docker,
    "base_image": _missing_base_image,
    "bubblewrap": _missing_bubblewrap,
    "redis": _missing_redis,
    "postgres": _missing_postgres,
    "sdk": _missing_sdk,
    "chaos": _missing_chaos,
}


@functools.cache
def missing(service: str) -> str | None:
    """Return why a service cannot be used here, None if it can."""
    return CHECKS[service]()


def required() -> set[str]:
    """Return the services that must not be missing, from REQUIRE."""
    return {name.strip() for name in os.environ.get("REQUIRE", "").split(",") if name.strip()}

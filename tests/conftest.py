from __future__ import annotations

import pytest

from tests import services
from tests.real_redis import running_redis


def pytest_collection_modifyitems(items):
    for item in items:
        for service in services.CHECKS:
            if item.get_closest_marker(service) is None:
                continue
            reason = services.missing(service)
            if reason and service not in services.required():
                item.add_marker(pytest.mark.skip(reason=f"{service}: {reason}"))


@pytest.fixture(autouse=True)
def _required_services_are_here(request):
    for service in services.CHECKS:
        if request.node.get_closest_marker(service) and (reason := services.missing(service)):
            pytest.fail(f"REQUIRE names {service}, but {reason}")


def pytest_configure(config):
    unknown = services.required() - set(services.CHECKS)
    if unknown:
        raise pytest.UsageError(f"REQUIRE names unknown services: {', '.join(sorted(unknown))}")


@pytest.fixture
def redis_server(tmp_path):
    """Settings of a real Redis, and its process; mark the test with redis."""
    with running_redis(tmp_path) as running:
        yield running

from __future__ import annotations

import pytest

from tests.acceptance.doctor.running import look, run
from tests.ports import free_port
from tests.real_redis import running_redis

# Beside the user who may do everything, one who may not write.
MORE = """
maxmemory 50mb
maxmemory-policy noeviction
user reader on >s3cret ~* &* +@read +@connection
"""


@pytest.fixture
def redis(tmp_path):
    with running_redis(tmp_path, MORE) as (settings, _):
        yield settings


@pytest.mark.redis
def test_redis_tells_version_latency_and_a_policy_that_refuses_writes(place, redis):
    code, checks = look(place, "redis", **redis)
    assert (code, checks["redis"]["status"]) == (0, "warn")
    for word in ("noeviction", "answers in", "writes", "version ", "Redis agrees"):
        assert word in checks["redis"]["found"]
    assert "maxmemory-policy" in checks["redis"]["fix"]


@pytest.mark.redis
@pytest.mark.parametrize(
    ("changes", "found", "fix"),
    [
        ({"REDIS_PASSWORD": "wrong-one"}, "refuses the login", "REDIS_PASSWORD"),
        ({"REDIS_USER": "nobody"}, "refuses the login", "REDIS_USER"),
        ({"REDIS_USER": "reader"}, "knows the user, but forbids", "ACL SETUSER"),
        ({"REDIS_DB": "99"}, "answers with an error", "REDIS_DB"),
    ],
)
def test_what_redis_refuses_is_told_apart(place, redis, changes, found, fix):
    code, said, complained = run(place, "--only=redis", **{**redis, **changes})
    assert code == 1
    assert found in said
    assert fix in said
    assert "wrong-one" not in said + complained
    assert "s3cret" not in said + complained


def test_a_redis_that_is_not_there_is_told_apart_from_a_wrong_password(place):
    settings = {"REDIS_ENABLED": "True", "REDIS_PORT": str(free_port())}
    code, checks = look(place, "redis", **settings)
    assert code == 1
    assert "no Redis answers at localhost:" in checks["redis"]["found"]
    assert "REDIS_SERVER" in checks["redis"]["fix"]

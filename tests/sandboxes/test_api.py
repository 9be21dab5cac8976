"""Our own API, over the same application that the server runs."""

from __future__ import annotations

import base64
import json
from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission
from django.utils import timezone

from pools.models import Pool
from sandboxes.models import ApiToken, Event, Sandbox
from sandboxes.states import State, StopReason
from tests.factories import let_work_behind_end, make_sandbox, make_type, make_user

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def api(fake, client):
    """Return a caller of the API as a user: api(method, path, body) → status, answer."""

    def as_user(name="alice"):
        _, secret = ApiToken.issue(make_user(name), f"of {name} {ApiToken.objects.count()}")

        def call(method, path, body=None):
            answer = client.generic(
                method,
                f"/api/v1/{path}",
                b"" if body is None else json.dumps(body),
                content_type="application/json",
                headers={"Authorization": f"Bearer {secret}"},
            )
            return answer.status_code, json.loads(answer.content or b"null")

        return call

    return as_user


def test_a_batch_is_lent_with_all_it_asks_for(api):
    call = api()
    files = [{"path": "in/a.txt", "content": base64.b64encode(b"hello").decode()}]
    status, answer = call(
        "POST",
        "sandboxes",
        {
            "sandbox_type": "base",
            "count": 3,
            "environment": {"KEY": "value"},
            "labels": {"run": "7"},
            "files": files,
            "session_ctx_id": "s",
            "lifetime_seconds": 60,
            "idle_seconds": 30,
        },
    )
    assert status == 201, answer
    assert len({one["container_name"] for one in answer["data"]}) == 3
    one = answer["data"][0]
    assert (one["labels"], one["idle_seconds"], one["session_ctx_id"]) == ({"run": "7"}, 30, "s")
    assert one["expires_at"] > timezone.now().timestamp()
    assert one["timeline"]["kind"] == "cold"
    assert one["timeline"]["because"] == "no warm one was ready"
    assert [phase for phase, _ in one["timeline"]["phases"]][-1] == "bound"
    row = Sandbox.objects.get(name=one["container_name"])
    assert (row.environment, row.timeline) == ({"KEY": "value"}, one["timeline"])


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"count": 0}, "count"),
        ({"count": 1000}, "count"),
        ({"kind": "base"}, "kind"),
        ({"sandbox_type": "none"}, "sandbox_type"),
        ({"environment": {"SECRET_TOKEN": "x"}}, "SECRET_TOKEN"),
        ({"files": [{"path": "../x", "content": ""}]}, "files"),
        ({"files": [{"path": "x", "content": "?"}]}, "base64"),
        ({"files": [{"path": "x", "content": "ä"}]}, "base64"),
        ({"lifetime_seconds": 0}, "lifetime_seconds"),
        ({"labels": {"a": 1}}, "labels"),
        ({"labels": {"a\0b": "c"}}, "labels"),
        ({"labels": {"\ud800": "c"}}, "labels"),
    ],
)
def test_a_wish_that_cannot_be_met_is_refused_by_its_field(api, body, named):
    status, answer = api()("POST", "sandboxes", body)
    assert status == 422
    assert named in answer["detail"]
    assert not Sandbox.objects.exists()


def test_a_lifetime_above_the_types_is_refused(api):
    kind = make_type()
    kind.lifetime_seconds = 60
    kind.save()
    status, answer = api()("POST", "sandboxes", {"lifetime_seconds": 61})
    assert (status, "at most 60 s" in answer["detail"]) == (422, True)
    status, answer = api()("POST", "sandboxes", {})
    assert answer["data"][0]["expires_at"] is not None


def test_the_list_shows_the_callers_own_filtered_and_in_pages(api):
    alice = make_user("alice")
    mine = [make_sandbox(owner=alice, labels={"run": str(n % 2)}) for n in range(5)]
    make_sandbox(owner=make_user("bob"))
    make_sandbox(State.WARM)
    make_sandbox(State.STOPPED, owner=alice)
    call = api()
    _, first = call("GET", "sandboxes?state=running&limit=3")
    _, second = call("GET", f"sandboxes?state=running&limit=3&after={first['next']}")
    names = [one["container_name"] for one in first["data"] + second["data"]]
    assert names == [one.name for one in reversed(mine)]
    assert second["next"] is None
    _, odd = call("GET", "sandboxes?label=run=1")
    assert len(odd["data"]) == 2
    assert call("GET", "sandboxes?label=run__regex=.")[1]["data"] == []
    assert call("GET", "sandboxes?state=asleep")[0] == 422
    assert call("GET", "sandboxes?colour=red")[0] == 422


def test_one_is_shown_with_its_events_and_released(api):
    call = api()
    _, answer = call("POST", "sandboxes", {})
    name = answer["data"][0]["container_name"]
    _, shown = call("GET", f"sandboxes/{name}")
    assert [event["new_state"] for event in shown["data"]["events"]] == [
        "pending",
        "starting",
        "running",
    ]
    assert api("bob")("GET", f"sandboxes/{name}")[0] == 404
    assert call("DELETE", f"sandboxes/{name}")[0] == 204
    assert call("DELETE", f"sandboxes/{name}")[0] == 204
    let_work_behind_end()
    assert call("GET", f"sandboxes/{name}")[1]["data"]["exact_state"] == "stopped"
    assert call("POST", f"sandboxes/{name}", {})[0] == 405


def test_keep_alive_counts_as_a_call_and_extends_the_lifetime(api):
    long_ago = timezone.now() - timedelta(hours=1)
    sandbox = make_sandbox(owner=make_user("alice"), last_used_at=long_ago, expires_at=long_ago)
    call = api()
    status, answer = call("POST", f"sandboxes/{sandbox.name}/keepalive", {"lifetime_seconds": 60})
    assert status == 200
    assert answer["data"]["expires_at"] > timezone.now().timestamp()
    sandbox.refresh_from_db()
    assert sandbox.last_used_at > long_ago
    ended = make_sandbox(State.STOPPED, owner=make_user("alice"), stop_reason=StopReason.RELEASED)
    assert call("POST", f"sandboxes/{ended.name}/keepalive", {})[0] == 410


def test_timelines_give_percentiles_for_each_type(api):
    for milliseconds in (10, 20, 30):
        make_sandbox(owner=make_user("alice"), timeline={"phases": [["started", milliseconds]]})
    _, answer = api()("GET", "timelines")
    assert answer["data"] == {"base": {"started": {"count": 3, "p50": 20, "p95": 30}}}


def test_pools_are_shown_to_all_and_changed_by_those_who_may(api):
    Pool.objects.create(sandbox_type=make_type(), target=2, ceiling=4)
    make_sandbox(State.WARM)
    make_sandbox()
    call = api()
    [pool] = call("GET", "pools")[1]["data"]
    assert (pool["target"], pool["warm"], pool["outdated"], pool["lent"]) == (2, 1, 1, 1)
    status, answer = call("PATCH", "pools/base", {"target": 3})
    assert (status, "pools.change_pool" in answer["detail"]) == (403, True)
    make_user("alice").user_permissions.add(Permission.objects.get(codename="change_pool"))
    assert call("PATCH", "pools/base", {"target": 3, "freeze": True})[1]["data"]["target"] == 3
    pool = Pool.objects.get()
    assert (pool.target, pool.ceiling, pool.freeze) == (3, 4, True)
    status, answer = call("PATCH", "pools/base", {"target": 5})
    assert (status, "ceiling" in answer["detail"]) == (422, True)
    assert call("PATCH", "pools/gui", {"target": 1})[0] == 404
    assert call("PATCH", "pools/base", {"size": 1})[0] == 422
    assert not Event.objects.exists()


def test_without_a_token_nothing_is_shown(client, fake):
    assert client.get("/api/v1/pools").status_code == 401
    assert client.get("/api/v1/sandboxes").status_code == 401


def test_a_superuser_lists_all_sandboxes_but_only_sessions_of_its_own(api, client):
    root = make_user("root", is_superuser=True)
    _, secret = ApiToken.issue(root, "of root")
    _, theirs = api()("POST", "sandboxes", {"session_ctx_id": "theirs"})
    call = api("root")
    _, own = call("POST", "sandboxes", {"session_ctx_id": "own"})
    assert {one["owner"] for one in call("GET", "sandboxes")[1]["data"]} == {"alice", "root"}
    assert call("GET", f"sandboxes/{theirs['data'][0]['session_id']}")[0] == 200

    def rpc(name, **body):
        header = {"Authorization": f"Bearer {secret}"}
        answer = client.post(f"/{name}", body, content_type="application/json", headers=header)
        return answer.json()["data"]

    assert rpc("list_session_keys") == ["own"]
    assert rpc("get_session_mapping", session_ctx_id="own") == [own["data"][0]["container_name"]]
    assert rpc("get_session_mapping", session_ctx_id="theirs") == []

from __future__ import annotations

import base64
import json
import secrets
import socket
from http.client import HTTPException, HTTPResponse
from threading import Timer

import pytest

from deployers.fake.guest import FakeGuest
from tests.deployers.contract.calls import TOKEN, fetch
from tests.deployers.fake_steps import FakeSteps


class TestGuest(FakeSteps):
    @pytest.fixture
    def url(self, deployer, make_spec):
        spec = make_spec(env={"SECRET_TOKEN": TOKEN, "COLOUR": "blue"})
        return self.start(deployer, spec).url

    def call(self, url, path, body=None, **options):
        content = None if body is None else json.dumps(body).encode()
        method = "GET" if body is None else "POST"
        status, _, answer = fetch(url, path, method=method, body=content, **options)
        return status, json.loads(answer)

    def test_it_wants_the_token(self, url):
        assert fetch(url, "/fastapi/healthz", token="wrong")[0] == 403
        assert fetch(url, "/fastapi/healthz")[2] == b"OK"

    @pytest.mark.parametrize(
        ("command", "stdout", "stderr", "code"),
        [
            ("echo 'a  b' c", "a  b c\n", None, "0"),
            ("echo one && exit 3", "one\n", None, "3"),
            ("printenv COLOUR; sleep 0", "blue\n", None, "0"),
            ("fail loudly", "", "loudly\n", "1"),
            ("nonsense", "", "sh: nonsense: not found\n", "127"),
        ],
    )
    def test_it_plays_a_shell(self, url, command, stdout, stderr, code):
        _, answer = self.call(url, "/fastapi/tools/run_shell_command", {"command": command})
        texts = {part["description"]: part["text"] for part in answer["content"]}
        assert (texts["stdout"], texts.get("stderr"), texts["returncode"]) == (stdout, stderr, code)
        assert answer["isError"] is (code != "0")
        assert answer["content"][-1]["description"] == "returncode"

    def test_it_plays_a_cell(self, url):
        _, answer = self.call(url, "/fastapi/tools/run_ipython_cell", {"code": "print(1)"})
        assert answer["content"][0]["text"] == "print(1)\n"

    def test_it_has_no_servers_of_tools(self, url):
        assert self.call(url, "/fastapi/mcp/list_tools") == (200, {})
        body = {"server_configs": {}, "overwrite": False}
        assert self.call(url, "/fastapi/mcp/add_servers", body) == (200, "OK")
        _, answer = self.call(url, "/fastapi/mcp/call_tool", {"tool_name": "lamp"})
        assert answer["isError"]
        assert "lamp" in answer["content"][0]["text"]

    def test_it_keeps_files(self, url):
        path = "/fastapi/workspace/file?path=/workspace/d/f"
        content = secrets.token_bytes(300_000)
        assert fetch(url, path)[0] == 404
        status, _, entry = fetch(url, path, method="PUT", body=content)
        assert (status, json.loads(entry)["size"]) == (200, 300_000)
        assert fetch(url, path)[2] == content
        assert self.call(url, "/fastapi/workspace/exists?path=d/f") == (200, {"exists": True})
        assert [one["path"] for one in self.call(url, "/fastapi/workspace/list?path=.")[1]] == [
            "d/f"
        ]
        assert fetch(url, "/fastapi/workspace/entry?path=d/f", method="DELETE")[0] == 204
        assert fetch(url, path)[0] == 404

    def test_it_keeps_files_in_the_workspace_it_was_given(self, deployer, make_spec, tmp_path):
        url = self.start(deployer, make_spec(workspace=tmp_path)).url
        fetch(url, "/fastapi/workspace/file?path=d/f", method="PUT", body=b"kept")
        assert (tmp_path / "d" / "f").read_bytes() == b"kept"

    def bind(self, url, environment=None, **files):
        listed = [
            {"path": path, "content": base64.b64encode(content).decode()}
            for path, content in files.items()
        ]
        return self.call(url, "/v1/bind", {"environment": environment or {}, "files": listed})

    def printed(self, url, name):
        body = {"command": f"printenv {name}"}
        _, answer = self.call(url, "/fastapi/tools/run_shell_command", body)
        return answer["content"][0]["text"]

    def test_it_says_that_it_can_be_bound(self, url):
        answer = self.call(url, "/v1/capabilities")[1]
        assert (answer["guest"], answer["protocol"]) == ("sandboxplatform", 1)
        assert "bind" in answer["features"]

    def test_it_has_the_environment_and_the_files_it_is_bound_to(self, url):
        assert self.bind(url, {"FRUIT": "fig"}, **{"d/f": b"kept"}) == (200, {"bound": True})
        assert self.printed(url, "FRUIT") == "fig\n"
        assert self.printed(url, "COLOUR") == "blue\n"
        assert fetch(url, "/fastapi/workspace/file?path=d/f")[2] == b"kept"

    def test_it_writes_what_it_is_bound_to_into_its_workspace(self, deployer, make_spec, tmp_path):
        url = self.start(deployer, make_spec(workspace=tmp_path)).url
        assert self.bind(url, f=b"kept")[0] == 200
        assert (tmp_path / "f").read_bytes() == b"kept"

    def test_it_is_bound_once_but_to_the_same_as_often_as_asked(self, url):
        assert self.call(url, "/v1/bind", {}) == (200, {"bound": True})
        for _ in range(2):
            assert self.bind(url, {"FRUIT": "fig"}, f=b"1") == (200, {"bound": True})
        for other in ({"FRUIT": "kiwi"}, {"FRUIT": "fig", "MORE": "1"}):
            status, answer = self.bind(url, other, f=b"1")
            assert status == 409
            assert "is bound already" in answer["detail"]
        assert self.bind(url, {"FRUIT": "fig"}, f=b"2")[0] == 409
        assert self.call(url, "/v1/bind", {}) == (200, {"bound": True})
        assert self.printed(url, "FRUIT") == "fig\n"

    def test_it_refuses_what_a_guest_cannot_be_bound_to(self, url):
        for name, value in (("SECRET_TOKEN", "mine"), ("GUEST_PORT", "1"), ("N", 1)):
            status, answer = self.bind(url, {name: value})
            assert status == 422
            assert f"environment.{name}'" in answer["detail"]
        assert self.bind(url, {"A": "a"}, **{"../f": b""})[0] == 403
        wrong = {"environment": {"A": "a"}, "files": [{"path": "f", "content": "*"}]}
        assert self.call(url, "/v1/bind", wrong)[0] == 422
        assert self.printed(url, "A") == ""
        assert self.bind(url, {"A": "b"}) == (200, {"bound": True})

    def test_an_older_guest_cannot_be_bound(self):
        guest = FakeGuest(env={"SECRET_TOKEN": TOKEN}, files={}, can_bind=False)
        try:
            assert "bind" not in self.call(guest.url, "/v1/capabilities")[1]["features"]
            assert self.bind(guest.url, {"A": "a"})[0] == 404
            assert self.printed(guest.url, "A") == ""
        finally:
            guest.close()

    def test_it_echoes_any_method(self, url):
        for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            _, _, answer = fetch(url, "/fastapi/echo/x?a=1", method=method, body=b"12345")
            seen = json.loads(answer)
            assert (seen["method"], seen["query"], seen["body_length"]) == (method, "a=1", 5)
            assert seen["headers"]["Authorization"] == f"Bearer {TOKEN}"

    def test_it_takes_a_chunked_body(self, url):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=5) as caller:
            head = f"PUT /fastapi/echo HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
            chunks = "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
            caller.sendall((head + chunks).encode())
            answer = HTTPResponse(caller)
            answer.begin()
            assert json.loads(answer.read())["body_length"] == 5

    def test_it_drips(self, url):
        assert fetch(url, "/fastapi/drip?pieces=2&seconds=0")[2] == b"piece 0\npiece 1\n"

    def test_a_call_that_runs_when_it_is_removed_ends_at_once(self, deployer, url):
        (seen,) = deployer.inspect_all()
        Timer(0.1, deployer.remove, [seen.name]).start()
        with pytest.raises((OSError, HTTPException)):
            self.call(url, "/fastapi/tools/run_shell_command", {"command": "sleep 30"})

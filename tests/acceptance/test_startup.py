"""What a server says when it starts, and when it cannot."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

from sandboxplatform.setting_table import BASE_DIR
from tests.ports import free_port
from tests.server import Server


def run(server: Server, *options, timeout=60, **environment):
    """Run the command to its end; return exit code and output."""
    done = subprocess.run(
        [sys.executable, str(BASE_DIR / "manage.py"), "runsandboxserver", *options],
        cwd=server.folder,
        env={**server.environment(), **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.mark.bubblewrap
def test_it_prints_address_login_and_deployer_and_the_password_once(make_server):
    server = make_server(CONTAINER_DEPLOYMENT="local")
    server.start()
    assert server.get("/health", token="")[0] == 200
    assert server.stop() == 0
    first = server.output
    assert f"Address:  {server.url}" in first
    assert "login admin / " in first
    assert "Deployer: local: CONTAINER_DEPLOYMENT names it (bubblewrap" in first
    password = first.split("login admin / ")[1].split()[0]
    server.start().stop()
    assert server.output.count(password) == 1


@pytest.mark.bubblewrap
def test_the_printed_login_opens_the_admin(make_server):
    import http.cookiejar
    import urllib.parse
    import urllib.request

    server = make_server(CONTAINER_DEPLOYMENT="local").start()
    password = server.output.split("login admin / ")[1].split()[0]
    jar = http.cookiejar.CookieJar()
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    opener.open(f"{server.url}/admin/login/").close()
    token = next(cookie.value for cookie in jar if cookie.name == "csrftoken")
    form = {"username": "admin", "password": password, "csrfmiddlewaretoken": token}
    data = urllib.parse.urlencode({**form, "next": "/admin/"}).encode()
    with opener.open(f"{server.url}/admin/login/?next=/admin/", data) as page:
        text = page.read().decode()
    assert "Operations" in text
    assert "Sandbox types" in text
    for change_list in ("sandbox", "sandboxtype", "session", "portlease", "event", "apitoken"):
        with opener.open(f"{server.url}/admin/sandboxes/{change_list}/") as page:
            assert page.status == 200
    with opener.open(f"{server.url}/static/admin/css/base.css") as style:
        assert style.status == 200


@pytest.mark.bubblewrap
def test_without_an_engine_the_local_deployer_is_chosen_and_the_line_says_why(make_server):
    server = make_server(DOCKER_HOST="unix:///nonexistent.sock").start()
    server.stop()
    (line,) = [line for line in server.output.splitlines() if line.startswith("Deployer:")]
    assert line.startswith("Deployer: local: ")
    assert "/nonexistent.sock" in line


def test_an_engine_that_is_not_there_is_an_error_when_named(make_server):
    server = make_server(CONTAINER_DEPLOYMENT="docker")
    code, output = run(server, DOCKER_HOST="unix:///nonexistent.sock")
    assert code == 1
    assert "/nonexistent.sock" in output


def test_a_missing_bubblewrap_is_an_error_that_says_what_to_install(make_server, tmp_path):
    server = make_server(CONTAINER_DEPLOYMENT="local")
    code, output = run(server, PATH=str(tmp_path))
    assert code == 1
    assert "install bubblewrap" in output


def test_neither_engine_nor_bubblewrap_names_both_ways_out(make_server, tmp_path):
    code, output = run(make_server(), PATH=str(tmp_path), DOCKER_HOST="unix:///nonexistent.sock")
    assert code == 1
    assert "/nonexistent.sock" in output
    assert "install bubblewrap" in output


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"PORT": "many"}, "PORT must be a whole number"),
        ({"CONTAINER_DEPLOYMENT": "podman"}, "CONTAINER_DEPLOYMENT must be one of"),
        ({"WORKERS": "2"}, "WORKERS is 2"),
        ({"FILE_SYSTEM": "oss"}, "not available yet"),
        ({"HOST": "0.0.0.0", "BEARER_TOKEN": ""}, "ALLOW_ANONYMOUS"),
        ({"DEFAULT_SANDBOX_TYPE": "spaceship"}, "DEFAULT_SANDBOX_TYPE names 'spaceship'"),
        ({"DATABASE_URL": "mysql://a:b@c/d"}, "DATABASE_URL must be a PostgreSQL URL"),
        ({"DATABASE_URL": "nonsense"}, "DATABASE_URL must be a PostgreSQL URL"),
        ({"DATA_DIR": "/dev/null/x"}, "DATA_DIR is '/dev/null/x', which cannot be written"),
        ({"DEFAULT_MOUNT_DIR": "/dev/null/x"}, "DEFAULT_MOUNT_DIR is '/dev/null/x'"),
        ({"READONLY_MOUNTS": '{"/nosuch": "/x"}'}, "READONLY_MOUNTS names '/nosuch'"),
        ({"BEARER_TOKEN": "two words"}, "BEARER_TOKEN must be printable ASCII"),
    ],
)
def test_a_setting_that_cannot_be_used_ends_it_with_code_2(make_server, settings, expected):
    code, output = run(make_server(**settings))
    assert (code, expected in output) == (2, True), output


def test_a_config_file_that_is_not_there_ends_it_with_code_2(make_server):
    code, output = run(make_server(), "--config", "missing.env")
    assert code == 2
    assert "missing.env" in output


@pytest.mark.bubblewrap
def test_a_config_file_is_read_and_options_win_over_it(make_server):
    server = make_server("--config", "my.env", CONTAINER_DEPLOYMENT="local")
    port = server.port
    (server.folder / "my.env").write_text("PORT=1\nLOG_FORMAT=json\nUNKNOWN_NAME=1\n")
    server.options = (*server.options, "--port", str(port), "--log-level", "info")
    server.start()
    server.stop()
    lines = [json.loads(line) for line in server.output.splitlines() if line.startswith("{")]
    assert any("UNKNOWN_NAME" in line["message"] for line in lines)


@pytest.mark.bubblewrap
def test_a_port_in_use_is_named(make_server):
    server = make_server(CONTAINER_DEPLOYMENT="local")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", server.port))
        taken.listen()
        code, output = run(server)
    assert code == 2
    assert f"PORT {server.port}" in output


def test_a_broken_extension_is_named_with_its_line(make_server):
    server = make_server()
    (server.folder / "broken.py").write_text("x = 1\nraise RuntimeError('no licence')\n")
    code, output = run(server, "--extension", "broken.py")
    assert code == 2
    assert "broken.py, line 2: RuntimeError: no licence" in output


def test_an_extension_cannot_take_the_name_of_another_type(make_server):
    server = make_server()
    (server.folder / "twice.py").write_text(
        "from sandboxes.registry import SandboxRegistry\n"
        "@SandboxRegistry.register('image', sandbox_type='base')\n"
        "class Mine: pass\n"
    )
    code, output = run(server, "--extension", "twice.py")
    assert code == 2
    assert "'base' is registered already" in output


@pytest.mark.bubblewrap
def test_no_token_on_loopback_is_served_with_a_warning(make_server):
    server = make_server(CONTAINER_DEPLOYMENT="local", BEARER_TOKEN="")
    server.start()
    status, answer = server.rpc("get_status", identity="x")
    rebound = {"Host": "evil.example"}
    refused = [
        server.get(path, headers=rebound)[0] for path in ("/health", "/proxy/x/y", "/admin/")
    ]
    server.stop()
    assert status == 404, answer
    assert refused == [400, 400, 400]
    assert "BEARER_TOKEN is empty" in server.output


@pytest.mark.bubblewrap
def test_pages_of_other_sites_cannot_use_a_server_without_a_token(make_server):
    server = make_server(CONTAINER_DEPLOYMENT="local", BEARER_TOKEN="").start()
    here = f"127.0.0.1:{server.port}"
    foreign = [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}]
    own = [{"Origin": f"http://{here}", "Sec-Fetch-Site": "same-origin"}, {}]
    statuses = [
        server.request(
            "POST", "/cleanup", b"{}", headers={**extra, "Content-Type": "application/json"}
        )[0]
        for extra in foreign + own
    ]
    assert server.stop() == 0
    assert statuses == [403, 403, 200, 200]


@pytest.mark.bubblewrap
def test_a_second_server_on_the_same_data_dir_is_refused(make_server):
    server = make_server(CONTAINER_DEPLOYMENT="local").start()
    name = server.create()
    code, output = run(server, PORT=str(free_port()))
    assert code == 2
    assert f"Another server (process {server.process.pid}) uses DATA_DIR" in output
    assert server.shell(name, "echo unharmed") == "unharmed\n"
    assert server.stop() == 0


@pytest.mark.bubblewrap
def test_a_start_that_failed_does_not_cost_the_login(make_server):
    server = make_server(CONTAINER_DEPLOYMENT="local")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", server.port))
        taken.listen()
        assert "login admin" not in run(server)[1]
    server.start()
    assert server.stop() == 0
    assert "login admin / " in server.output


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_a_socket_without_permission_is_named(make_server, tmp_path):
    denied = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(denied))
        listener.listen()
        denied.chmod(0o600)
        tmp_path.chmod(0o755)
        code = (
            "import os, sys; sys.path.insert(0, sys.argv[1])\n"
            "from deployers import make_deployer\n"
            "from deployers.errors import DeployerError\n"
            "deployer = make_deployer('docker', instance='x', base_url=sys.argv[2])\n"
            # Only now: this interpreter's files may be readable for root alone.
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "try: deployer.check()\n"
            "except DeployerError as error: print(error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(BASE_DIR), f"unix://{denied}"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert "group docker" in done.stdout, done.stdout + done.stderr

"""The doctor as a person or a script runs it, where one thing after the other is broken."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import pytest

from deployers.docker import DockerDeployer
from sandboxplatform.setting_table import BASE_DIR
from tests.acceptance.conftest import DEPLOYERS
from tests.deployers.tiny_image import build_image
from tests.ports import free_port
from tests.server import Server
from tests.waiting import wait_until

NOWHERE = {"DOCKER_HOST": "unix:///nonexistent.sock"}


def manage(place, *arguments, **environment):
    return subprocess.Popen(
        [sys.executable, str(BASE_DIR / "manage.py"), *arguments],
        cwd=place.folder,
        env={**place.environment(), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(place, *options, **environment):
    """Run the doctor to its end; return exit code and output."""
    process = manage(place, "doctor", *options, **environment)
    said, complained = process.communicate(timeout=150)
    assert "Traceback" not in complained, complained
    return process.returncode, said, complained


def look(place, *names, **environment):
    """Return the exit code and the checks by name."""
    only = [f"--only={name}" for name in names]
    code, said, complained = run(place, "--json", *only, **environment)
    assert said, complained
    found = json.loads(said)
    assert found["ok"] == (code == 0)
    return code, {check["name"]: check for check in found["checks"]}


@pytest.fixture(scope="module")
def migrated():
    """A folder whose database is ready, as an earlier server left it."""
    with tempfile.TemporaryDirectory(prefix="sbx-") as folder:
        place = Server(Path(folder))
        process = manage(place, "migrate", "--verbosity", "0")
        said, complained = process.communicate(timeout=60)
        assert process.returncode == 0, said + complained
        yield place


@pytest.fixture
def place(migrated, make_server):
    """An installation of the test's own that was never started."""
    mine = make_server()
    shutil.copytree(migrated.folder / "data", mine.folder / "data")
    return mine


def rows(place, question):
    with closing(sqlite3.connect(place.folder / "data" / "db.sqlite3")) as database:
        return [answer for (answer,) in database.execute(question)]


def states(place):
    return rows(place, "SELECT state FROM sandboxes_sandbox")


def workspaces(place):
    return list((place.folder / "workspaces").glob("*"))


@pytest.mark.parametrize("deployer", DEPLOYERS)
def test_where_all_is_well_it_says_so_line_by_line_and_leaves_nothing(place, deployer):
    code, said, complained = run(place, CONTAINER_DEPLOYMENT=deployer)
    assert (code, complained) == (0, ""), said
    lines = [line for line in said.splitlines() if not line.startswith(" ")]
    names = [line.split()[1] for line in lines]
    assert names == [
        "settings", "limits", "database", "redis", "engine", "images", "permissions", "disk",
        "ports", "clock", "sandbox",
    ]  # fmt: skip
    assert lines[-1].startswith("ok    sandbox      base: start ")
    assert lines[-1].endswith("; gone")
    assert states(place) == ["stopped"]
    assert workspaces(place) == []


@pytest.mark.base_image
def test_on_docker_not_even_a_network_is_left(place):
    code, _ = look(place, "sandbox", CONTAINER_DEPLOYMENT="docker")
    assert code == 0
    (instance,) = rows(place, "SELECT id FROM sandboxes_installation")
    networks = docker("network", "ls", "--format", "{{.Name}}")
    assert instance not in networks.replace("-", "")


def docker(*arguments):
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout


@pytest.mark.parametrize("deployer", DEPLOYERS)
def test_a_running_server_is_not_disturbed(make_server, deployer):
    server = make_server(CONTAINER_DEPLOYMENT=deployer).start()
    name = server.create()
    code, checks = look(server)
    assert code == 0, checks
    held = f"127.0.0.1:{server.port} is held by our server (process {server.process.pid})"
    assert held in checks["ports"]["found"]
    assert server.shell(name, "echo unharmed") == "unharmed\n"
    assert server.rpc("release", identity=name) == (200, {"data": True})
    assert server.stop() == 0


def test_only_and_sandbox_type_choose_what_is_looked_at(place):
    code, checks = look(place, "images", "limits", CONTAINER_DEPLOYMENT="fake")
    assert (code, list(checks)) == (0, ["limits", "database", "engine", "images"])
    code, said, _ = run(place, "--only=images", "--sandbox-type=gui", CONTAINER_DEPLOYMENT="fake")
    assert code == 1
    assert "gui needs an image, and this deployer has none" in said


@pytest.mark.parametrize("option", ["--only=nothing", "--config=missing.env"])
def test_an_option_that_cannot_be_used_ends_it_with_code_2(place, option):
    code, said, complained = run(place, option)
    assert (code, said) == (2, "")
    assert option.partition("=")[2] in complained


def test_a_setting_that_cannot_be_read_ends_it_with_code_2(place):
    code, said, complained = run(place, "--json", PORT="many")
    assert (code, said) == (2, "")
    assert "PORT must be a whole number" in complained


def test_settings_that_cannot_go_together_fail_and_the_rest_is_looked_at(place):
    code, checks = look(place, "settings", "limits", WORKERS="2")
    assert code == 1
    assert "REDIS_ENABLED=True" in checks["settings"]["fix"]
    assert checks["limits"]["status"] in ("ok", "warn")


def test_a_config_file_is_read_and_its_unknown_names_are_told(place):
    (place.folder / "my.env").write_text("PROT=1\nDEBUG=True\n")
    code, said, _ = run(place, "--only=settings", "--config=my.env")
    assert code == 0
    assert "PROT in " in said
    assert "Set DEBUG=False" in said


# The database.


def test_missing_migrations_fail_and_what_needs_the_database_is_skipped(make_server):
    code, checks = look(make_server(), "database", "sandbox", CONTAINER_DEPLOYMENT="fake")
    assert code == 1
    assert "migrations are not applied" in checks["database"]["found"]
    assert "python manage.py migrate" in checks["database"]["fix"]
    assert checks["engine"]["found"] == "needs database, which failed"
    assert checks["sandbox"]["status"] == "skip"


def test_a_file_that_is_no_database_fails(place):
    for file in (place.folder / "data").glob("db.sqlite3*"):
        file.unlink()
    (place.folder / "data" / "db.sqlite3").write_text("no database " * 1000)
    code, checks = look(place, "database", "limits")
    assert code == 1
    assert "file is not a database" in checks["database"]["found"]
    assert "DATA_DIR" in checks["database"]["fix"]
    assert checks["limits"]["status"] in ("ok", "warn")


def test_a_database_that_is_not_there_fails_without_its_password(place):
    url = f"postgres://me:hunter22@127.0.0.1:{free_port()}/name"
    code, said, complained = run(place, DATABASE_URL=url, **NOWHERE)
    assert code == 1
    assert "FAIL  database     no connection" in said
    assert "DATABASE_URL" in said
    assert "hunter22" not in said + complained
    assert "skip  engine       needs database, which failed" in said


# Redis.


@pytest.fixture
def redis(tmp_path):
    """A real Redis with a user who may do everything and one who may not write."""
    port = free_port()
    config = tmp_path / "redis.conf"
    config.write_text(
        f"bind 127.0.0.1\nport {port}\nsave ''\ndir {tmp_path}\nmaxmemory 50mb\n"
        "maxmemory-policy noeviction\nuser default off\nuser worker on >s3cret ~* &* +@all\n"
        "user reader on >s3cret ~* &* +@read +@connection\n"
    )
    process = subprocess.Popen(
        ["redis-server", str(config)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    for line in process.stdout:
        if "Ready to accept connections" in line:
            break
    yield {
        "REDIS_ENABLED": "True",
        "REDIS_SERVER": "127.0.0.1",
        "REDIS_PORT": str(port),
        "REDIS_USER": "worker",
        "REDIS_PASSWORD": "s3cret",
    }
    process.terminate()
    process.communicate(timeout=10)


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


# The engine and the machine.


def test_an_engine_that_is_not_there_fails_and_skips_the_sandbox(place):
    code, checks = look(place, "sandbox", CONTAINER_DEPLOYMENT="docker", **NOWHERE)
    assert code == 1
    assert "CONTAINER_DEPLOYMENT names docker" in checks["engine"]["found"]
    assert "/nonexistent.sock" in checks["engine"]["fix"]
    assert checks["sandbox"]["found"] == "needs engine, which failed"


def test_neither_engine_nor_bubblewrap_names_both_ways_out(place, tmp_path):
    code, checks = look(place, "engine", PATH=str(tmp_path), **NOWHERE)
    assert code == 1
    assert "/nonexistent.sock" in checks["engine"]["fix"]
    assert "install bubblewrap" in checks["engine"]["fix"]


def test_the_servers_port_in_other_hands_fails(place):
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", place.port))
        stranger.listen()
        code, checks = look(place, "ports", CONTAINER_DEPLOYMENT="fake")
    assert code == 1
    assert f"127.0.0.1:{place.port} is taken by another program" in checks["ports"]["found"]


def test_few_open_files_are_a_warning(place):
    command = f'ulimit -n 512; exec "$0" {BASE_DIR}/manage.py doctor --only limits'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable],
        cwd=place.folder,
        env=place.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "warn  limits  512 open files" in done.stdout
    assert "LimitNOFILE" in done.stdout


@pytest.mark.base_image
def test_docker_with_published_ports_is_reached_through_a_leased_one(place):
    low = free_port()
    settings = {"SANDBOX_ACCESS_HOST": "127.0.0.1", "PORT_RANGE": f"[{low},{low + 20}]"}
    code, checks = look(place, "ports", "sandbox", CONTAINER_DEPLOYMENT="docker", **settings)
    assert code == 0, checks
    assert "0 of the 20 ports" in checks["ports"]["found"]
    assert checks["sandbox"]["status"] == "ok"


@pytest.fixture
def silent_image(tmp_path):
    """An image whose container runs, and whose guest never answers."""
    (tmp_path / "Dockerfile").write_text('FROM debian:bookworm-slim\nCMD ["sleep", "600"]\n')
    deployer = DockerDeployer(instance=f"test-{secrets.token_hex(4)}")
    tag = f"sandboxplatform-test-silent:{secrets.token_hex(4)}"
    image = build_image(deployer, tmp_path, tag)
    yield tag
    deployer.remove_image(image)
    deployer.close()


@pytest.fixture
def silent_type(place, silent_image):
    """A sandbox type of that image in the test's installation."""
    make = (
        "from sandboxes.models import SandboxType\n"
        f"SandboxType.objects.create(name='silent', image={silent_image!r})"
    )
    process = manage(place, "shell", "-c", make)
    said, complained = process.communicate(timeout=60)
    assert process.returncode == 0, said + complained
    return {"CONTAINER_DEPLOYMENT": "docker", "DEFAULT_SANDBOX_TYPE": "silent"}


def containers_of(image):
    return docker("ps", "-aq", "--filter", f"ancestor={image}").split()


@pytest.mark.docker
def test_a_guest_that_never_answers_fails_with_stage_and_setting(place, silent_type, silent_image):
    code, checks = look(place, "sandbox", CREATE_TIMEOUT="2", **silent_type)
    assert code == 1
    assert "it did not start" in checks["sandbox"]["found"]
    assert "its guest did not answer in time" in checks["sandbox"]["fix"]
    assert "SANDBOX_ACCESS_HOST" in checks["sandbox"]["fix"]
    assert states(place) == ["stopped"]
    assert containers_of(silent_image) == []


@pytest.mark.docker
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_ends_it_with_nothing_left(place, silent_type, silent_image, number):
    process = manage(place, "doctor", "--only", "sandbox", **silent_type)
    deadline = time.monotonic() + 60
    while not containers_of(silent_image):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
    os.kill(process.pid, number)
    said, complained = process.communicate(timeout=60)
    assert process.returncode == 130, said + complained
    assert "Interrupted" in complained
    assert "Traceback" not in complained
    assert states(place) == ["stopped"]
    assert containers_of(silent_image) == []
    assert workspaces(place) == []


@pytest.mark.docker
def test_one_that_is_killed_leaves_a_sandbox_that_ends_by_itself(place, silent_type, silent_image):
    process = manage(place, "doctor", "--only", "sandbox", **silent_type)
    wait_until(lambda: containers_of(silent_image) or process.poll() is not None)
    process.kill()
    process.communicate(timeout=60)
    assert rows(place, "SELECT expires_at IS NOT NULL FROM sandboxes_sandbox") == [1]
    # What its lifetime would bring about.
    reap = manage(place, "reapsandboxes", "--once", **silent_type)
    reap.communicate(timeout=60)
    assert reap.returncode == 0
    assert containers_of(silent_image) == []

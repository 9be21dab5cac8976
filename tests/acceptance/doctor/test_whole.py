"""A whole run, its options and its exit codes."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from sandboxplatform.setting_table import BASE_DIR
from tests.acceptance.conftest import DEPLOYERS
from tests.acceptance.doctor.running import docker, look, rows, run, states, workspaces


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

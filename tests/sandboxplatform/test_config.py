from __future__ import annotations

import pytest

from sandboxplatform import config
from sandboxplatform.setting_table import SETTINGS


def load(tmp_path, dotenv="", **environ):
    (tmp_path / ".env").write_text(dotenv)
    return config.load(environ, directory=tmp_path)


def test_defaults_are_those_of_the_table(tmp_path):
    values = load(tmp_path)
    assert {setting.name: getattr(values, setting.name) for setting in SETTINGS} == {
        setting.name: setting.default for setting in SETTINGS
    }
    assert values.warnings == []


def test_the_environment_wins_over_the_dotenv_file(tmp_path):
    values = load(tmp_path, "PORT=9000\nHOST=localhost\n", PORT="9001")
    assert (values.PORT, values.HOST) == (9001, "localhost")


def test_the_file_of_config_wins_over_the_environment(tmp_path):
    file = tmp_path / "other.env"
    file.write_text("PORT=9000\n")
    values = load(tmp_path, "HOST=localhost\n", PORT="1", SANDBOXPLATFORM_CONFIG=str(file))
    assert (values.PORT, values.HOST) == (9000, "127.0.0.1")


def test_the_file_of_config_must_exist(tmp_path):
    with pytest.raises(config.ConfigError, match=r"missing\.env"):
        load(tmp_path, SANDBOXPLATFORM_CONFIG=str(tmp_path / "missing.env"))


def test_an_empty_value_is_the_default(tmp_path):
    assert load(tmp_path, "PORT=\nREADONLY_MOUNTS=\n").PORT == 8000


def test_options_of_the_command_line_win_over_everything(tmp_path):
    (tmp_path / ".env").write_text("PORT=9000\n")
    values = config.load({"PORT": "9001"}, directory=tmp_path, overrides={"PORT": "9002"})
    assert values.PORT == 9002


def test_an_unknown_name_in_the_dotenv_file_is_warned_about(tmp_path):
    (warning,) = load(tmp_path, "POTR=9000\n").warnings
    assert "POTR" in warning
    assert str(tmp_path / ".env") in warning


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("PORT", "eighty", "whole number"),
        ("PORT", "70000", "between 1 and 65535"),
        ("WORKERS", "0", "between 1 and"),
        ("DEBUG", "perhaps", "True or False"),
        ("CONTAINER_DEPLOYMENT", "podman", "docker, local, fake"),
        ("CONTAINER_DEPLOYMENT", "gvisor", "not available yet"),
        ("CONTAINER_PREFIX_KEY", "Sandbox_", "lower-case"),
        ("CONTAINER_PREFIX_KEY", "a" * 39, "at most 38"),
        ("PORT_RANGE", "[10,20]", "between 1024 and 65536"),
        ("PORT_RANGE", "[50000,40000]", "lower one first"),
        ("PORT_RANGE", "many", "two ports"),
        ("READONLY_MOUNTS", "/data", "JSON object"),
        ("READONLY_MOUNTS", '{"/data": "data"}', "not absolute"),
        ("DEFAULT_SANDBOX_TYPE", "[1]", "JSON list"),
        ("DEFAULT_SANDBOX_TYPE", ",", "at least one"),
        ("WATCHER_SCAN_INTERVAL", "-1", "0 or more"),
        ("LOG_FORMAT", "xml", "text, json"),
        ("POOL_SIZE", "-1", "0 or more"),
        ("FILE_SYSTEM", "oss", "not available yet"),
        ("FC_ACCOUNT_ID", "1", "not available yet"),
        ("HEARTBEAT_TIMEOUT", "soon", "a whole number"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_with_name_value_and_form(
    tmp_path, name, text, expected
):
    with pytest.raises(config.ConfigError) as caught:
        load(tmp_path, f"{name}='{text}'\n")
    sentence = str(caught.value)
    assert sentence.startswith(name)
    assert expected in sentence
    assert text in sentence


def test_a_secret_is_not_shown_in_an_error(tmp_path):
    with pytest.raises(config.ConfigError) as caught:
        load(tmp_path, OSS_ACCESS_KEY_SECRET="hunter2")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("base", ["base"]), ("base, gui", ["base", "gui"]), ('["base","gui"]', ["base", "gui"])],
)
def test_default_types_are_one_a_comma_list_or_a_json_list(tmp_path, text, expected):
    assert expected == load(tmp_path, DEFAULT_SANDBOX_TYPE=text).DEFAULT_SANDBOX_TYPE


def test_several_workers_need_redis(tmp_path):
    with pytest.raises(config.ConfigError, match=r"WORKERS is 2.*REDIS_ENABLED=True"):
        config.check(load(tmp_path, WORKERS="2"))
    config.check(load(tmp_path, WORKERS="2", REDIS_ENABLED="True"))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1.2.3"])
def test_no_token_is_allowed_on_a_loopback_address(tmp_path, host):
    config.check(load(tmp_path, HOST=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_no_token_is_refused_on_any_other_address_unless_allowed(tmp_path, host):
    with pytest.raises(config.ConfigError, match=r"BEARER_TOKEN.*ALLOW_ANONYMOUS"):
        config.check(load(tmp_path, HOST=host))
    config.check(load(tmp_path, HOST=host, ALLOW_ANONYMOUS="True"))
    config.check(load(tmp_path, HOST=host, BEARER_TOKEN="secret"))

"""What the guest reads from its environment, once, and what it hands to its children."""

from __future__ import annotations

import contextlib
import math
import os
import pwd
import stat
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

ANSWER_MARGIN = 5.0
"""Seconds kept back of the caller's patience, so that a timed-out call still gets its answer."""

OUTPUT_LIMIT = 1024 * 1024
"""Bytes kept of each output stream of one call."""

OWN_PARENT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
"""The guest's own place on PYTHONPATH, which would make it importable, and shadowable, by cells."""


class ConfigError(Exception):
    """The environment does not allow a start; says which variable and what it should be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything the guest was told at its start."""

    secret: str = field(repr=False)
    workspace: str
    port: int
    listener_fd: int | None
    call_limit: float
    """Seconds a tool call may take unless it asks for something else."""

    mcp_servers_file: str | None
    kernel_python: str
    """The interpreter that runs the IPython kernel; the guest's own unless told otherwise."""

    child_env: Mapping[str, str] = field(repr=False)
    """The environment of everything the guest starts: without its secret and its settings."""

    _given_env: Mapping[str, str] = field(repr=False)
    """What child_env was made from, without the secret."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Config:
        secret = environ.get("SECRET_TOKEN", "")
        if not secret:
            raise ConfigError("SECRET_TOKEN is not set; without it anyone could run code here.")
        workspace = environ.get("WORKSPACE_DIR") or "/workspace"
        given = {name: value for name, value in environ.items() if name != "SECRET_TOKEN"}
        config = cls(
            secret=secret,
            workspace=_usable_workspace(workspace),
            port=_whole_number(environ, "GUEST_PORT", 80),
            listener_fd=_whole_number(environ, "GUEST_FD", None),
            call_limit=max(1.0, _seconds(environ, "NGINX_TIMEOUT", 60.0) - ANSWER_MARGIN),
            mcp_servers_file=environ.get("GUEST_MCP_CONFIG") or None,
            kernel_python=environ.get("GUEST_KERNEL_PYTHON") or sys.executable,
            child_env=_child_environment(given, workspace),
            _given_env=given,
        )
        config.make_room_for_pip()
        return config

    def with_environment(self, more: Mapping[str, str]) -> Config:
        """Return what the guest would have been told if its environment had had these, too."""
        given = {**self._given_env, **more}
        return replace(self, child_env=_child_environment(given, self.workspace), _given_env=given)

    def make_room_for_pip(self) -> None:
        """Make the directory below HOME that `pip install` puts packages into."""
        # Python looks there only if it exists when it starts, and kernels live long.
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        with contextlib.suppress(OSError):
            os.makedirs(
                f"{self.child_env['HOME']}/.local/lib/{version}/site-packages", exist_ok=True
            )


def _whole_number(environ: Mapping[str, str], name: str, default: int | None) -> int | None:
    text = environ.get(name, "")
    if not text:
        return default
    if not text.isdecimal():
        raise ConfigError(f"{name} is {text!r}; it should be a whole number.")
    return int(text)


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name, "")
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise ConfigError(f"{name} is {text!r}; it should be a number of seconds above 0.")
    return seconds


def _usable_workspace(path: str) -> str:
    if not path.startswith("/"):
        raise ConfigError(f"WORKSPACE_DIR is {path!r}; it should be an absolute path.")
    path = os.path.normpath(path)
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"WORKSPACE_DIR {path} cannot be made: {error.strerror}.") from error
    return path


def _child_environment(environ: Mapping[str, str], workspace: str) -> dict[str, str]:
    env = {name: value for name, value in environ.items() if not name.startswith("GUEST_")}
    paths = [
        entry
        for entry in env.pop("PYTHONPATH", "").split(os.pathsep)
        if entry and os.path.realpath(entry) != OWN_PARENT
    ]
    if paths:
        env["PYTHONPATH"] = os.pathsep.join(paths)
    env.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    env.setdefault("LANG", "C.UTF-8")
    env["HOME"] = _usable_home(env.get("HOME", ""), workspace)
    env["USER"] = env["LOGNAME"] = _user_name()
    # Where `pip install` puts programs.
    local = str(Path(env["HOME"]) / ".local/bin")
    if local not in env["PATH"].split(os.pathsep):
        env["PATH"] = f"{local}{os.pathsep}{env['PATH']}"
    return env


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        # An arbitrary uid has no passwd entry; getpass.getuser() fails without a name.
        return "sandbox"


def _usable_home(home: str, workspace: str) -> str:
    """Keep a HOME that can be written; else make a private one, in /tmp if possible."""
    # "/" is what engines set for a uid without a passwd entry.
    if home not in ("", "/") and os.path.isdir(home) and os.access(home, os.W_OK | os.X_OK):
        return home
    parents = [workspace]
    with contextlib.suppress(FileNotFoundError):  # no directory at all can be written
        parents.insert(0, tempfile.gettempdir())
    for parent in parents:
        candidate = Path(parent) / f".home-{os.getuid()}"
        try:
            candidate.mkdir(mode=0o700, exist_ok=True)
            found = candidate.lstat()
        except OSError:
            continue
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid():
            return str(candidate)
    return workspace

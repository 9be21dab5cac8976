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
from dataclasses import dataclass, field
from pathlib import Path

ANSWER_MARGIN = 5.0
"""Seconds kept back of the caller's patience, so that a timed-out call still gets its answer."""

OUTPUT_LIMIT = 1024 * 1024
"""Bytes kept of each output stream of one call."""


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

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Config:
        secret = environ.get("SECRET_TOKEN", "")
        if not secret:
            raise ConfigError("SECRET_TOKEN is not set; without it anyone could run code here.")
        workspace = environ.get("WORKSPACE_DIR") or "/workspace"
        return cls(
            secret=secret,
            workspace=_usable_workspace(workspace),
            port=_whole_number(environ, "GUEST_PORT", 80),
            listener_fd=_whole_number(environ, "GUEST_FD", None),
            call_limit=max(1.0, _seconds(environ, "NGINX_TIMEOUT", 60.0) - ANSWER_MARGIN),
            mcp_servers_file=environ.get("GUEST_MCP_CONFIG") or None,
            kernel_python=environ.get("GUEST_KERNEL_PYTHON") or sys.executable,
            child_env=_child_environment(environ, workspace),
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
    env = {
        name: value
        for name, value in environ.items()
        if name != "SECRET_TOKEN" and not name.startswith("GUEST_")
    }
    # The guest's own place on PYTHONPATH would make it importable, and shadowable, there.
    own_parent = str(Path(__file__).resolve().parent.parent)
    paths = [
        entry
        for entry in env.pop("PYTHONPATH", "").split(os.pathsep)
        if entry and os.path.realpath(entry) != own_parent
    ]
    if paths:
        env["PYTHONPATH"] = os.pathsep.join(paths)
    env.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    env.setdefault("LANG", "C.UTF-8")
    env["HOME"] = _usable_home(env.get("HOME", ""), workspace)
    env["USER"] = env["LOGNAME"] = _user_name()
    _prepare_for_pip(env)
    return env


def _prepare_for_pip(env: dict[str, str]) -> None:
    """Let what `pip install` puts below HOME be found, by name and by import."""
    local = Path(env["HOME"]) / ".local"
    if str(local / "bin") not in env["PATH"].split(os.pathsep):
        env["PATH"] = f"{local / 'bin'}{os.pathsep}{env['PATH']}"
    # Python looks there only if the directory exists when it starts, and kernels live long.
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    with contextlib.suppress(OSError):
        (local / "lib" / version / "site-packages").mkdir(parents=True, exist_ok=True)


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        # An arbitrary uid has no passwd entry; getpass.getuser() fails without a name.
        return "sandbox"


def _usable_home(home: str, workspace: str) -> str:
    """Keep a HOME that can be written; else make a private one, in /tmp if possible."""
    # "/" is what engines set for a uid without a passwd entry.
    if home not in ("", "/") and Path(home).is_dir() and os.access(home, os.W_OK | os.X_OK):
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

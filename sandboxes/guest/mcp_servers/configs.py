"""What a caller says about an MCP server, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.exceptions import HTTPException

STREAMABLE = ("streamable_http", "streamableHttp", "streamable-http", "http")
HTTP_TIMEOUT = 30.0
READ_TIMEOUT = 300.0


@dataclass(frozen=True, slots=True)
class ProgramConfig:
    """A server that is a program, spoken to over its stdin and stdout."""

    command: str
    args: tuple[str, ...] = field(repr=False)
    env: Mapping[str, str] = field(repr=False)
    """Added to the environment of every child; often holds keys."""

    cwd: str | None


@dataclass(frozen=True, slots=True)
class UrlConfig:
    """A server that is reached over HTTP."""

    url: str
    streamable: bool
    """False: the older transport with server-sent events."""

    headers: Mapping[str, str] = field(repr=False)
    timeout: float
    read_timeout: float


ServerConfig = ProgramConfig | UrlConfig


def parse_configs(document: Mapping[str, Any]) -> dict[str, ServerConfig]:
    """
    Read {"mcpServers": {name: {"command", "args", "env", "cwd"} or {"type", "url", …}}}.

    Keys that belong to other programs are ignored, since such files are passed around. Raises
    HTTPException 422 that names the field.
    """
    servers = document.get("mcpServers")
    if not isinstance(servers, dict) or not servers:
        raise HTTPException(
            422, "Field 'server_configs.mcpServers' should be an object of servers by name."
        )
    return {name: _Reader(name, config).read() for name, config in servers.items()}


class _Reader:
    def __init__(self, name: str, config: Any) -> None:
        self._field = f"server_configs.mcpServers.{name}"
        if not isinstance(config, dict):
            raise HTTPException(422, f"Field '{self._field}' should be an object.")
        self._config = config

    def read(self) -> ServerConfig:
        if self._config.get("command"):
            return ProgramConfig(
                command=self._text("command"),
                args=tuple(self._list_of_texts("args")),
                env=self._texts_by_name("env"),
                cwd=self._text("cwd") if self._config.get("cwd") else None,
            )
        if self._config.get("url"):
            return UrlConfig(
                url=self._url(),
                streamable=self._transport() in STREAMABLE,
                headers=self._texts_by_name("headers"),
                timeout=self._seconds("timeout", HTTP_TIMEOUT),
                read_timeout=self._seconds("sse_read_timeout", READ_TIMEOUT),
            )
        raise HTTPException(
            422, f"Field '{self._field}' names neither a 'command' to run nor a 'url' to reach."
        )

    def _transport(self) -> str:
        # Without a type, a URL means server-sent events, as in the published runtime.
        kind = self._config.get("type") or self._config.get("transport") or "sse"
        if kind != "sse" and kind not in STREAMABLE:
            raise self._wrong("type", "sse or streamable_http")
        return kind

    def _url(self) -> str:
        url = self._text("url")
        if not url.startswith(("http://", "https://")):
            raise self._wrong("url", "an http:// or https:// address")
        return url

    def _text(self, name: str) -> str:
        value = self._config[name]
        if not isinstance(value, str) or "\0" in value:
            raise self._wrong(name, "a string without NUL characters")
        return value

    def _list_of_texts(self, name: str) -> list[str]:
        value = self._config.get(name) or []
        if not isinstance(value, list) or not all(_is_plain(item) for item in value):
            raise self._wrong(name, "a list of strings")
        return [str(item) for item in value]

    def _texts_by_name(self, name: str) -> dict[str, str]:
        value = self._config.get(name) or {}
        if not isinstance(value, dict) or not all(_is_plain(item) for item in value.values()):
            raise self._wrong(name, "an object of strings")
        return {key: str(item) for key, item in value.items()}

    def _seconds(self, name: str, default: float) -> float:
        value = self._config.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise self._wrong(name, "a number of seconds above 0")
        return float(value)

    def _wrong(self, name: str, expected: str) -> HTTPException:
        return HTTPException(422, f"Field '{self._field}.{name}' should be {expected}.")


def _is_plain(value: Any) -> bool:
    """Is this a string, or a number that can only mean one string?"""
    if isinstance(value, bool):
        return False
    return isinstance(value, int | float) or (isinstance(value, str) and "\0" not in value)

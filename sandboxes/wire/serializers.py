"""The bodies of the RPC routes. What a body may not hold is refused by its name."""

from __future__ import annotations

import json
from collections.abc import Mapping

from rest_framework import serializers

POSITIONAL = ("args", "kwargs")
"""The SDK's async classes post their first and second positional argument under these names."""


class StrictCharField(serializers.CharField):
    """A string; numbers and booleans are not turned into one."""

    def to_internal_value(self, data: object) -> str:
        if not isinstance(data, str) or not is_storable(data):
            self.fail("invalid")
        return super().to_internal_value(data)


def is_storable(text: str) -> bool:
    """Tell whether a string is text that a database can hold: no NUL, no half of a pair."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


class StrictBooleanField(serializers.BooleanField):
    """true or false; strings and numbers are not turned into one."""

    def to_internal_value(self, data: object) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class Body(serializers.Serializer):
    """A JSON object of which every field is known."""

    def to_internal_value(self, data: object) -> dict[str, object]:
        if not isinstance(data, Mapping):
            return super().to_internal_value(data)
        data = dict(data)
        for name, position in zip(POSITIONAL, self.fields, strict=False):
            if name in data and position not in data:
                data[position] = data.pop(name)
        unknown = [name for name in data if name not in self.fields]
        if unknown:
            known = ", ".join(self.fields) or "none"
            raise serializers.ValidationError(
                dict.fromkeys(unknown, f"There is no such field here; known fields: {known}.")
            )
        return super().to_internal_value(data)


def _text(**options: object) -> StrictCharField:
    return StrictCharField(trim_whitespace=False, max_length=1024, **options)


class Identity(Body):
    identity = _text(help_text="The sandbox's name, or its name without prefix.")


class Nothing(Body):
    pass


class SessionKey(Body):
    session_ctx_id = _text()


class _Meta(serializers.DictField):
    def to_internal_value(self, data: object) -> dict[str, object]:
        value = super().to_internal_value(data)
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        except ValueError:  # such as 1e999, which is read as an infinity
            raise serializers.ValidationError("It holds a number that is too large.") from None
        if not is_storable(text) or "\\u0000" in text:
            raise serializers.ValidationError("It holds characters that are no text.")
        key = value.get("session_ctx_id")
        if key is not None and not isinstance(key, str):
            raise serializers.ValidationError({"session_ctx_id": "Not a valid string."})
        if isinstance(key, str) and len(key) > 255:
            raise serializers.ValidationError({"session_ctx_id": "At most 255 characters."})
        return value


class CreateFromPool(Body):
    sandbox_type = _text(required=False, allow_null=True, help_text="base, browser, …")
    meta = _Meta(required=False, allow_null=True, help_text='{"session_ctx_id": …}')


def environment_field() -> serializers.DictField:
    """Return the field of a create's environment variables; their names are checked later."""
    return serializers.DictField(
        child=StrictCharField(allow_blank=True, trim_whitespace=False),
        required=False,
        allow_null=True,
    )


class Create(Body):
    sandbox_type = _text(required=False, allow_null=True)
    mount_dir = _text(required=False, allow_null=True)
    storage_path = _text(required=False, allow_null=True)
    environment = environment_field()
    meta = _Meta(required=False, allow_null=True)

    def validate_storage_path(self, value: str | None) -> None:
        if value is not None:
            raise serializers.ValidationError("Object storage is not available yet; leave it out.")


class ListTools(Body):
    identity = _text()
    tool_type = _text(required=False, allow_null=True)


class CallTool(Body):
    identity = _text()
    tool_name = _text()
    arguments = serializers.DictField(required=False, allow_null=True)


class AddMcpServers(Body):
    identity = _text()
    server_configs = serializers.DictField(help_text='{"mcpServers": {name: {…}}}')
    overwrite = StrictBooleanField(required=False)

    def validate_server_configs(self, value: dict[str, object]) -> dict[str, object]:
        servers = value.get("mcpServers")
        if not isinstance(servers, dict) or not servers:
            raise serializers.ValidationError("It must hold mcpServers, an object of servers.")
        for name, config in servers.items():
            if not isinstance(config, dict) or not ("command" in config or "url" in config):
                raise serializers.ValidationError(
                    {"mcpServers": {name: "It must be an object with a command or a url."}}
                )
        return value


class Data(serializers.Serializer):
    """What every RPC route answers."""

    data = serializers.JSONField(allow_null=True)


class Detail(serializers.Serializer):
    """What every error answers."""

    detail = serializers.CharField()

"""The bodies and queries of our own API. Durations are in seconds."""

from __future__ import annotations

import base64

from rest_framework import serializers

from sandboxes.binding import File
from sandboxes.states import State
from sandboxes.wire.serializers import Body, StrictCharField, environment_field, is_storable

MOST_AT_ONCE = 200
LONGEST_SECONDS = 365 * 24 * 3600


class _FileContent(Body):
    path = StrictCharField(max_length=1024, help_text="Below the workspace.")
    content = StrictCharField(
        allow_blank=True, trim_whitespace=False, help_text="The file's bytes as base64."
    )
    mode = serializers.IntegerField(required=False, min_value=0, max_value=0o777)

    def validate_content(self, value: str) -> bytes:
        try:
            return base64.b64decode(value, validate=True)
        except ValueError:  # of binascii, or of a character that is not ASCII
            raise serializers.ValidationError("It is not base64.") from None

    def validate(self, attrs: dict[str, object]) -> File:
        return File(attrs["path"], attrs["content"], attrs.get("mode"))


class _Labels(serializers.DictField):
    child = StrictCharField(allow_blank=True, max_length=255)

    def to_internal_value(self, data: object) -> dict[str, str]:
        labels = super().to_internal_value(data)
        if not all(map(is_storable, labels)):
            raise serializers.ValidationError("A name holds characters that are no text.")
        return labels


def _seconds(**options: object) -> serializers.IntegerField:
    return serializers.IntegerField(
        required=False, allow_null=True, min_value=1, max_value=LONGEST_SECONDS, **options
    )


class CreateSandboxes(Body):
    """What is to be lent; all of it can be bound to a warm sandbox, but for mount_dir."""

    sandbox_type = StrictCharField(required=False, allow_null=True, max_length=64)
    count = serializers.IntegerField(required=False, min_value=1, max_value=MOST_AT_ONCE)
    session_ctx_id = StrictCharField(required=False, allow_null=True, max_length=255)
    environment = environment_field()
    labels = _Labels(required=False, allow_null=True)
    files = _FileContent(many=True, required=False, allow_null=True)
    mount_dir = StrictCharField(required=False, allow_null=True, max_length=1024)
    lifetime_seconds = _seconds(help_text="It ends so long after it was lent.")
    idle_seconds = _seconds(help_text="It ends, or is recycled, so long after the last call.")


class ListSandboxes(Body):
    """The query of the list; what is left out narrows nothing."""

    state = serializers.ChoiceField(State.choices, required=False)
    sandbox_type = serializers.CharField(required=False)
    session_ctx_id = serializers.CharField(required=False)
    label = serializers.CharField(required=False, help_text="NAME=VALUE")
    after = serializers.IntegerField(required=False, help_text="The next of the page before.")
    limit = serializers.IntegerField(required=False, min_value=1, max_value=500, default=100)

    def validate_label(self, value: str) -> tuple[str, str]:
        name, equals, wanted = value.partition("=")
        if not (name and equals):
            raise serializers.ValidationError("It must be NAME=VALUE.")
        return name, wanted


class KeepAlive(Body):
    lifetime_seconds = _seconds(help_text="Let it end so long from now instead.")


class Nothing(Body):
    pass

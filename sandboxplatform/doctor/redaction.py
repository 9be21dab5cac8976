"""Keeps secrets out of what the doctor prints, whoever wrote the sentence."""

from __future__ import annotations

import re
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

from django.conf import settings

from sandboxplatform.setting_table import SETTINGS

SHORTEST = 4
"""Shorter values stand in too many ordinary words to be searched for."""

_PASSWORD_IN_URL = re.compile(r"(://[^/\s:@]*):[^/\s@]+@")


class Redaction:
    """Replaces the settings' secrets, passwords in URLs, and characters that steer terminals."""

    def __init__(self, platform: SimpleNamespace) -> None:
        password = urlsplit(platform.DATABASE_URL).password or ""
        secrets = {str(getattr(platform, each.name) or "") for each in SETTINGS if each.secret}
        secrets |= {settings.SECRET_KEY, password, unquote(password)}
        self._secrets = sorted(
            (each for each in secrets if len(each) >= SHORTEST), key=len, reverse=True
        )

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        text = _PASSWORD_IN_URL.sub(r"\1:***@", text)
        return "".join(
            each if each.isprintable() or each == "\n" else "\N{REPLACEMENT CHARACTER}"
            for each in text.expandtabs().replace("\r\n", "\n")
        )

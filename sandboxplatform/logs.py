"""Structured log lines: for people on a terminal, or one JSON object each for machines."""

from __future__ import annotations

import json
import logging
import logging.config
from datetime import UTC, datetime

from sandboxes import log_context

CONTINUED = "\n    "
"""Indents what follows a line break, so that what others wrote cannot look like a log line."""

FIELDS = ("status", "milliseconds")
"""What a record may carry beside its message, given as extra."""


class AddContext(logging.Filter):
    """Put the request's id and the sandbox's name on every record."""

    def filter(self, record: logging.LogRecord) -> bool:
        context = log_context.current.get() or log_context.LogContext()
        record.request, record.sandbox = context.request, context.sandbox
        return True


def _context(record: logging.LogRecord) -> dict[str, object]:
    names = ("request", "sandbox", *FIELDS)
    return {
        name: value for name in names if (value := getattr(record, name, None)) not in (None, "")
    }


class TextFormatter(logging.Formatter):
    """TIME LEVEL logger: message [name=value …]."""

    def format(self, record: logging.LogRecord) -> str:
        pairs = " ".join(f"{name}={value}" for name, value in _context(record).items())
        line = super().format(record).replace("\r", "\\r").replace("\n", CONTINUED)
        return f"{line} [{pairs}]" if pairs else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the context."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_context(record),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


def configure(level: str, form: str) -> None:
    """Send every log line to standard error; form is text or json."""
    formatter = (
        {"()": JsonFormatter}
        if form == "json"
        else {
            "()": TextFormatter,
            "fmt": "%(asctime)s %(levelname)s %(name)s: %(message)s",
        }
    )
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"context": {"()": AddContext}},
            "formatters": {"chosen": formatter},
            "handlers": {
                "stderr": {
                    "class": "logging.StreamHandler",
                    "formatter": "chosen",
                    "filters": ["context"],
                }
            },
            "root": {"level": level, "handlers": ["stderr"]},
            "loggers": {
                # Its warnings repeat each 4xx that request_log has a line for already.
                "django.request": {"level": "ERROR"},
                "urllib3": {"level": "INFO"},
                "docker": {"level": "INFO"},
                "asyncio": {"level": "WARNING"},
            },
        }
    )

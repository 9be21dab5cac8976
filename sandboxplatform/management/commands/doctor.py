"""Say what is wrong here, and what to change."""

from __future__ import annotations

import json
import logging
import signal
from argparse import ArgumentParser, ArgumentTypeError

from django.conf import settings
from django.core.management import BaseCommand, CommandError
from django.db import connections

from sandboxplatform import logs
from sandboxplatform.doctor import output
from sandboxplatform.doctor.catalogue import CHECKS, NAMES
from sandboxplatform.doctor.examination import choose, examine
from sandboxplatform.doctor.subject import Subject

INTERRUPTED = 130
"""Exit code of a program that Ctrl-C ended, as shells count it."""

CONNECT_SECONDS = 5


def _name(text: str) -> str:
    if text not in NAMES:
        raise ArgumentTypeError(f"{text!r} is not one of {', '.join(NAMES)}")
    return text


def _connect_without_a_pool() -> int:
    """
    Have database errors come soon and as they are; return the size of a server process's pool.

    A pool tries again for as long as its caller has patience, and then says only that it did.
    """
    if connections["default"].vendor != "postgresql":
        return 0
    options = connections.settings["default"]["OPTIONS"]
    pool = options.pop("pool", None)
    options.setdefault("connect_timeout", CONNECT_SECONDS)
    return pool["max_size"] if pool else 0


class Command(BaseCommand):
    help = (
        "Look at settings, database, Redis, engine, images, ports, clock, disk and permissions, and "
        "start, use and release one real sandbox; say what is wrong and what to change. A running "
        "server is not disturbed. Exit code 0: nothing fails (warnings may be there); 1: something "
        "does; 2: the settings cannot be read."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--config", metavar="FILE", help="Read this file instead of .env.")
        parser.add_argument("--json", action="store_true", help="Print one JSON object.")
        parser.add_argument(
            "--only",
            type=_name,
            action="append",
            default=[],
            metavar="NAME",
            help=f"Run this check and what it needs; may be repeated: {', '.join(NAMES)}.",
        )
        parser.add_argument(
            "--sandbox-type", metavar="TYPE", help="Which sandbox to start (DEFAULT_SANDBOX_TYPE)."
        )

    def run_from_argv(self, argv: list[str]) -> None:
        # SIGTERM releases the sandbox as Ctrl-C does. SIGINT too: a job in the background of a
        # script is started with it ignored.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        super().run_from_argv(argv)

    def handle(self, *args: object, **options: object) -> None:
        if options["verbosity"] > 1:
            logs.configure(settings.PLATFORM.LOG_LEVEL, settings.PLATFORM.LOG_FORMAT)
        else:
            # What matters stands in the findings.
            logging.getLogger().addHandler(logging.NullHandler())
        subject = Subject(
            settings.PLATFORM,
            sandbox_type=options["sandbox_type"],
            pool_size=_connect_without_a_pool(),
        )
        checks = choose(CHECKS, options["only"])
        width = max(len(check.name) for check in checks)
        results = []
        try:
            for result in examine(checks, subject):
                results.append(result)
                if not options["json"]:
                    self.stdout.write(output.as_text(result, width=width))
                    self.stdout.flush()
        except KeyboardInterrupt:
            raise CommandError(
                "Interrupted; a sandbox that was started is released.", returncode=INTERRUPTED
            ) from None
        finally:
            subject.tidy()
        if options["json"]:
            self.stdout.write(json.dumps(output.as_json(results), ensure_ascii=False, indent=1))
        if not output.is_well(results):
            raise SystemExit(1)

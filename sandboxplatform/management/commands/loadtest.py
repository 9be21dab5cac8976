"""Measure a running server, beside the floor that its machine sets."""

from __future__ import annotations

import json
from argparse import ArgumentParser, ArgumentTypeError

from django.conf import settings
from django.core.management import BaseCommand, CommandError

from sandboxplatform.loadtest import output
from sandboxplatform.loadtest.results import OURS, REFERENCE
from sandboxplatform.loadtest.run import Options, Run
from sandboxplatform.loadtest.runner import CannotTest, execute
from sandboxplatform.loadtest.sections import SECTIONS
from sandboxplatform.loadtest.server import Server

INTERRUPTED = 130
"""Exit code of a program that Ctrl-C ended, as shells count it."""


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _counts(text: str) -> tuple[int, ...]:
    return tuple(_count(part.strip()) for part in text.split(","))


def _sections(text: str) -> list[str]:
    names = [part.strip() for part in text.split(",")]
    for name in names:
        if name not in SECTIONS:
            raise ArgumentTypeError(f"{name!r} is not one of {', '.join(SECTIONS)}")
    return [name for name in SECTIONS if name in names]


class Command(BaseCommand):
    help = (
        "Measure a running server: creates, calls through it and straight to the guest, "
        "sustained calls, what others notice of calls that sleep, warm claims, bursts, refilling "
        "pools, restarts, memory. It makes sandboxes there and releases them; where it may, it "
        "changes a pool's target meanwhile and puts it back."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        default = Options()
        add = parser.add_argument
        here = f"http://127.0.0.1:{settings.PLATFORM.PORT}"
        add("--base-url", default=here, help="The server (%(default)s).")
        add("--token", help="Its token (the setting BEARER_TOKEN).")
        add("--creates", type=_count, default=default.creates, help="Cold creates (%(default)s).")
        add("--calls", type=_count, default=default.calls, help="Calls per row (%(default)s).")
        add(
            "--seconds",
            type=float,
            default=default.seconds,
            help="How long calls are made without a pause, per step (%(default)s).",
        )
        add("--clients", type=_counts, default=default.clients, help="Clients of those (1,8,32).")
        add(
            "--sleepers",
            type=_count,
            default=default.sleepers,
            help="Calls that sleep at once (%(default)s).",
        )
        add(
            "--burst",
            type=_count,
            default=default.burst,
            help="Creates at once, from a pool made that large meanwhile (%(default)s).",
        )
        add(
            "--restart",
            metavar="COMMAND",
            default=default.restart,
            help="Shell command that restarts the server and returns once the old one has ended; "
            "measures until sandboxes lent before answer again.",
        )
        add("--sandbox-type", default="base", help="What is created (%(default)s).")
        add(
            "--only",
            type=_sections,
            default=list(SECTIONS),
            metavar="NAME,…",
            help=f"Sections to run, of {', '.join(SECTIONS)} (all).",
        )
        add("--json", action="store_true", help="Print one JSON object instead of the table.")
        add("--reference-url", help="A second server of the same wire, measured in turns with it.")
        add("--reference-token", default="", help="The second server's token.")

    def handle(self, *args: object, **given: object) -> None:
        options = Options(
            creates=given["creates"],
            calls=given["calls"],
            seconds=given["seconds"],
            clients=given["clients"],
            sleepers=given["sleepers"],
            burst=given["burst"],
            restart=given["restart"],
        )
        token = settings.PLATFORM.BEARER_TOKEN if given["token"] is None else given["token"]
        where = {OURS: (given["base_url"], token)}
        if given["reference_url"]:
            where[REFERENCE] = (given["reference_url"], given["reference_token"])
        try:
            servers = [
                Server(side, url, token, sandbox_type=given["sandbox_type"])
                for side, (url, token) in where.items()
            ]
        except ValueError as error:
            raise CommandError(str(error), returncode=2) from error
        run = Run(options, servers, say=self._say)
        run.report.options = {
            **vars(options),
            **{f"{side}_url": url for side, (url, _) in where.items()},
        }
        self._introduce(run, given["only"])
        try:
            report = execute(run, given["only"])
        except CannotTest as error:
            raise CommandError(str(error), returncode=1) from error
        if given["json"]:
            self.stdout.write(json.dumps(output.as_json(report), ensure_ascii=False, indent=1))
        else:
            self.stdout.write(output.as_text(report))
        if report.interrupted:
            raise SystemExit(INTERRUPTED)
        if report.is_empty:
            raise CommandError("Every call to the server failed.", returncode=1)

    def _introduce(self, run: Run, sections: list[str]) -> None:
        asked = run.options
        self._say(
            f"Loading {' and '.join(server.url for server in run.servers)} "
            f"({', '.join(sections)}): {asked.creates} creates, {asked.calls} calls a row, "
            f"{asked.seconds:g} s at {', '.join(map(str, asked.clients))} clients, "
            f"{asked.sleepers} sleeping calls. Its users will notice. Ctrl-C ends it and releases "
            "what it created."
        )

    def _say(self, line: str) -> None:
        self.stderr.write(line, str)  # not in the colour of errors

"""Build the image of a sandbox type."""

from __future__ import annotations

import signal
import time
from argparse import ArgumentParser
from contextlib import closing

from django.core.management import BaseCommand, CommandError

from sandboxes import builder, migrating, registry


class Command(BaseCommand):
    help = (
        "Build a built-in type's image with live output, start a sandbox from it, check its "
        "health, and only then move the tag. The name follows the RUNTIME_SANDBOX_* settings."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("type", metavar="TYPE", help="A type that has a Dockerfile: base.")

    def run_from_argv(self, argv: list[str]) -> None:
        # A supervisor's SIGTERM cancels as Ctrl-C does, and nothing is left in the engine.
        # SIGINT too: a job in the background of a script is started with it ignored.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        super().run_from_argv(argv)

    def handle(self, *args: object, **options: object) -> None:
        begun = time.monotonic()
        try:
            migrating.ensure_migrated()
            registry.sync()
            with closing(builder.build(options["type"])) as lines:
                for line in lines:
                    self.stdout.write(line)
                    self.stdout.flush()
        except (builder.BuildFailed, migrating.DatabaseNotReady) as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise CommandError(
                "Cancelled. The tag was not moved, unless the last line says so.", returncode=130
            ) from None
        self.stdout.write(f"Done in {time.monotonic() - begun:.0f} s")

"""Build the image of a sandbox type."""

from __future__ import annotations

import time
from argparse import ArgumentParser

from django.core.management import BaseCommand, CommandError

from sandboxes import builder


class Command(BaseCommand):
    help = (
        "Build a built-in type's image with live output, start a sandbox from it, check its "
        "health, and only then move the tag. The name follows the RUNTIME_SANDBOX_* settings."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("type", metavar="TYPE", help="A type that has a Dockerfile: base.")

    def handle(self, *args: object, **options: object) -> None:
        begun = time.monotonic()
        try:
            for line in builder.build(options["type"]):
                self.stdout.write(line)
                self.stdout.flush()
        except builder.BuildFailed as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"Done in {time.monotonic() - begun:.0f} s")

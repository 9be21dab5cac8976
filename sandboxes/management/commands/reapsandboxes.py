"""Remove what should no longer be there."""

from __future__ import annotations

from argparse import ArgumentParser

from django.conf import settings
from django.core.management import BaseCommand, CommandError

from sandboxes import loop, reaper
from sandboxes.migrating import DatabaseNotReady, ensure_migrated


class Command(BaseCommand):
    help = (
        "Remove sandboxes that ended, were abandoned, or have no record. runsandboxserver does "
        "this by itself; alone it can be run as a cronjob with --once, or directly."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--once", action="store_true", help="Run one pass and end.")
        parser.add_argument(
            "--dry-run", action="store_true", help="Say what one pass would remove and end."
        )
        parser.add_argument("--interval", type=float, metavar="SECONDS", help="Between two passes.")

    def handle(self, *args: object, **options: object) -> None:
        try:
            ensure_migrated()
        except DatabaseNotReady as error:
            raise CommandError(str(error)) from error
        if options["once"] or options["dry_run"]:
            report = reaper.reap(dry_run=options["dry_run"])
            self.stdout.write(str(report))
            for question in reaper.QUESTIONS:
                for name in getattr(report, question):
                    self.stdout.write(f"  {question}: {name}")
            return
        seconds = options["interval"] or settings.PLATFORM.WATCHER_SCAN_INTERVAL or 1
        loop.run_every(reaper.reap, seconds=seconds)

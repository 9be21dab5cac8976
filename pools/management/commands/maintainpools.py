"""Keep the pools filled."""

from __future__ import annotations

from argparse import ArgumentParser

from django.core.management import BaseCommand, CommandError

from deployers.errors import DeployerError
from pools import maintaining, seeding
from pools.keeper import Keeper
from sandboxes import deployment, registry
from sandboxes.migrating import DatabaseNotReady, ensure_migrated

SECONDS = 1.0


class Command(BaseCommand):
    help = (
        "Start missing warm sandboxes and end those that are too many or outdated. "
        "runsandboxserver does this by itself; alone it can be run as a cronjob with --once, or "
        "directly, also on several machines that reach the same engine."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--once", action="store_true", help="Run one pass, wait for what it starts, and end."
        )
        parser.add_argument(
            "--interval",
            type=float,
            default=SECONDS,
            metavar="SECONDS",
            help="Between two passes, where nothing wakes it sooner.",
        )

    def handle(self, *args: object, **options: object) -> None:
        if options["interval"] <= 0:
            raise CommandError(
                f"--interval is {options['interval']:g}: give seconds above 0.", returncode=2
            )
        try:
            ensure_migrated()
            registry.sync()
            seeding.sync()
            deployment.current()
        except (DatabaseNotReady, DeployerError) as error:
            raise CommandError(str(error)) from error
        if not options["once"]:
            maintaining.maintain(seconds=options["interval"])
            return
        keeper = Keeper()
        report = keeper.keep()
        keeper.wait()
        self.stdout.write(str(report))
        for error in report.errors:
            self.stdout.write(f"  error: {error}")

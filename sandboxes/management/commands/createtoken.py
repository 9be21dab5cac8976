"""Make an API token for a user."""

from __future__ import annotations

from argparse import ArgumentParser

from django.contrib.auth import get_user_model
from django.core.management import BaseCommand, CommandError
from django.db import IntegrityError

from sandboxes.migrating import DatabaseNotReady, ensure_migrated
from sandboxes.models import ApiToken


class Command(BaseCommand):
    help = (
        "Make an API token and print its secret, once. A program that sends it acts for the user "
        "and sees that user's sandboxes only."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username", help="The user it acts for; made if there is none.")
        parser.add_argument("--label", default="default", help="What tells it from others.")

    def handle(self, *args: object, **options: object) -> None:
        try:
            ensure_migrated()
        except DatabaseNotReady as error:
            raise CommandError(str(error)) from error
        user, created = get_user_model().objects.get_or_create(username=options["username"])
        if created:
            user.set_unusable_password()
            user.save(update_fields=["password"])
        try:
            _, secret = ApiToken.issue(user, options["label"])
        except IntegrityError as error:
            raise CommandError(
                f"{user} has a token labelled {options['label']!r}; choose another --label, or "
                f"revoke that one in the admin."
            ) from error
        self.stdout.write(secret)

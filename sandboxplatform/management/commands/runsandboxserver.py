"""Start the sandbox server: the web workers and the reaper beside them."""

from __future__ import annotations

import logging
import os
import secrets
import time
from argparse import ArgumentParser

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import BaseCommand, CommandError, call_command
from django.db import connections
from django.db.migrations.executor import MigrationExecutor

from deployers.errors import DeployerError
from sandboxes import actions, deployment, loop, pulling, reaper, registry
from sandboxes.models import Installation, Sandbox
from sandboxes.states import State, StopReason
from sandboxplatform import config, logs, web
from sandboxplatform.processes import Supervisor

logger = logging.getLogger("sandboxplatform")

ADMIN_NAME = "admin"
CLOSING_ROUNDS = 3
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def fail(sentence: object) -> CommandError:
    """Return the error that ends the command with exit code 2."""
    return CommandError(str(sentence), returncode=2)


class Command(BaseCommand):
    help = (
        "Start the server that lends sandboxes. Settings come from the environment and .env; "
        "the options below win over both."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--config", metavar="FILE", help="Read this file instead of .env.")
        parser.add_argument("--host", help="Address to listen on (HOST).")
        parser.add_argument("--port", help="Port to listen on (PORT).")
        parser.add_argument("--workers", help="Web worker processes (WORKERS).")
        parser.add_argument(
            "--log-level", type=str.upper, choices=LEVELS, help="Least level logged (LOG_LEVEL)."
        )
        parser.add_argument(
            "--extension",
            action="append",
            default=[],
            metavar="PATH_OR_MODULE",
            help="Load sandbox types from a Python file or module; may be repeated.",
        )

    def handle(self, *args: object, **options: object) -> None:
        self._read_settings(options)
        self._load_extensions(options["extension"])
        self._prepare_database()
        password = self._create_admin()
        reason = self._choose_deployer()
        platform = settings.PLATFORM
        try:
            listener = web.listen(platform.HOST, platform.PORT)
        except OSError as error:
            raise fail(
                f"Cannot listen on HOST {platform.HOST!r}, PORT {platform.PORT}: "
                f"{error.strerror}. End the program that uses it, or choose another PORT."
            ) from error
        self._introduce(password, reason)
        self._serve(listener)

    def _read_settings(self, options: dict[str, object]) -> None:
        named = {name: options[name.lower()] for name in ("HOST", "PORT", "WORKERS", "LOG_LEVEL")}
        given = {name: str(value) for name, value in named.items() if value is not None}
        try:
            platform = config.load(os.environ, overrides=given)
            config.check(platform)
        except config.ConfigError as error:
            raise fail(error) from error
        settings.PLATFORM.__dict__.update(vars(platform))
        settings.ALLOWED_HOSTS = config.allowed_hosts(platform)
        logs.configure(platform.LOG_LEVEL, platform.LOG_FORMAT)
        for warning in platform.warnings:
            logger.warning("%s", warning)
        if not platform.BEARER_TOKEN:
            logger.warning(
                "BEARER_TOKEN is empty: whoever reaches %s may use every sandbox.", platform.HOST
            )

    @staticmethod
    def _load_extensions(extensions: list[str]) -> None:
        for extension in extensions:
            try:
                registry.load_extension(extension)
            except registry.ExtensionError as error:
                raise fail(error) from error

    @staticmethod
    def _prepare_database() -> None:
        connection = connections["default"]
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            if connection.vendor != "sqlite":
                raise fail("The database lacks migrations: run python manage.py migrate first.")
            # The embedded database is nobody's but ours.
            call_command("migrate", verbosity=0, interactive=False)
        registry.sync()
        Installation.current_id()

    @staticmethod
    def _create_admin() -> str | None:
        """Make the admin's login where there is none; return its password, which is shown once."""
        users = get_user_model().objects
        if users.filter(is_superuser=True).exists():
            return None
        password = secrets.token_urlsafe(12)
        users.create_superuser(ADMIN_NAME, password=password)
        return password

    @staticmethod
    def _choose_deployer() -> str:
        known = registry.SandboxRegistry.definitions
        for name in settings.PLATFORM.DEFAULT_SANDBOX_TYPE:
            if name not in known and not actions.type_exists(name):
                raise fail(
                    f"DEFAULT_SANDBOX_TYPE names {name!r}, which is not a sandbox type; there are "
                    f"{', '.join(known)}. Types of your own come with --extension or the admin."
                )
        try:
            name, reason = deployment.choose()
        except DeployerError as error:
            raise CommandError(str(error), returncode=1) from error
        settings.PLATFORM.CONTAINER_DEPLOYMENT = name
        return reason

    def _introduce(self, password: str | None, reason: str) -> None:
        platform = settings.PLATFORM
        address = f"http://{platform.HOST}:{platform.PORT}"
        self.stdout.write(f"Address:  {address}  (API: {address}/api/schema/swagger-ui/)")
        if password:
            login = f"{ADMIN_NAME} / {password}  (shown this once; change it in the admin)"
            self.stdout.write(f"Admin:    {address}/admin/  login {login}")
        else:
            self.stdout.write(f"Admin:    {address}/admin/")
        self.stdout.write(f"Deployer: {platform.CONTAINER_DEPLOYMENT}: {reason}")
        self.stdout.flush()

    def _serve(self, listener: object) -> None:
        from sandboxplatform.asgi import application

        platform = settings.PLATFORM
        # A forked process must not share these with its parent.
        connections.close_all()
        deployment.forget()
        processes = {"web": web.WebServer(application, listener).run}
        if platform.WATCHER_SCAN_INTERVAL:
            processes["reaper"] = self._reap
        patience = platform.SHUTDOWN_TIMEOUT + 2 * web.EXTRA_SECONDS
        Supervisor(processes, patience=patience).run()
        listener.close()
        if platform.AUTO_CLEANUP:
            self._remove_all()
        logger.info("The server has closed.")

    @staticmethod
    def _reap() -> None:
        defaults = (actions.find_type(name) for name in settings.PLATFORM.DEFAULT_SANDBOX_TYPE)
        images = [registry.image_of(kind.name, kind.image) for kind in defaults]
        pulling.prefetch(deployment.current(), images)
        loop.run_every(reaper.reap, seconds=settings.PLATFORM.WATCHER_SCAN_INTERVAL)

    @staticmethod
    def _remove_all() -> None:
        """Remove every sandbox of this installation; what resists is left to the next start."""
        for _ in range(CLOSING_ROUNDS):
            left = list(Sandbox.objects.exclude(state=State.STOPPED))
            if not left:
                break
            logger.info("Removing %d sandboxes (AUTO_CLEANUP)", len(left))
            actions.stop_all(left, reason=StopReason.CLEANUP, actor="server")
            time.sleep(0.1)
        try:
            deployment.current().remove_shared()
        except DeployerError as error:
            logger.warning("Not everything could be removed: %s", error)
        deployment.current().close()

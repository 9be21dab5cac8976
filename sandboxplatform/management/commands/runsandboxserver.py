"""Start the sandbox server: read and check everything, say where it is, and serve."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import socket
import tempfile
from argparse import ArgumentParser
from pathlib import Path
from typing import BinaryIO

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import BaseCommand, CommandError

from deployers.errors import DeployerError
from pools import seeding
from sandboxes import actions, deployment, registry
from sandboxes.migrating import DatabaseNotReady, ensure_migrated
from sandboxes.models import Installation, Sandbox
from sandboxplatform import config, logs, serving, web

logger = logging.getLogger("sandboxplatform")

ADMIN_NAME = "admin"
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
        lock = self._take_data_dir()
        self._check_folders()
        self._prepare_database()
        reason = self._choose_deployer()
        listener = self._listen()
        # Last of all: the password is shown this once, so nothing may fail before it is.
        self._introduce(self._create_admin(), reason)
        serving.serve(listener, lock)

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
    def _take_data_dir() -> BinaryIO:
        """Refuse a second server on one DATA_DIR: at its end it would remove the first one's."""
        lock = (settings.DATA_DIR / "server.lock").open("a+b")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            pid = lock.read().decode() or "unknown"
            raise fail(
                f"Another server (process {pid}) uses DATA_DIR {str(settings.DATA_DIR)!r}: end it, "
                f"or give this one a DATA_DIR of its own."
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()).encode())
        lock.flush()
        return lock

    @staticmethod
    def _check_folders() -> None:
        folder = Path(settings.PLATFORM.DEFAULT_MOUNT_DIR).absolute()
        try:
            # Nobody else on this host has any business in there.
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise fail(
                f"DEFAULT_MOUNT_DIR is {str(folder)!r}, which cannot be written: {error.strerror}. "
                f"Change its permissions, or name another folder."
            ) from error
        for source in settings.PLATFORM.READONLY_MOUNTS or {}:
            if not Path(source).is_dir():
                raise fail(
                    f"READONLY_MOUNTS names {source!r}, which is not a folder of this machine: make "
                    f"it, or remove it from the setting."
                )

    @staticmethod
    def _listen() -> socket.socket:
        host, port = settings.PLATFORM.HOST, settings.PLATFORM.PORT
        try:
            return web.listen(host, port)
        except OSError as error:
            fix = {
                errno.EADDRINUSE: "End the program that uses it, or choose another PORT.",
                errno.EACCES: "Choose a PORT of 1024 or more, which any user may listen on.",
            }.get(error.errno, "Set HOST to an address of this machine.")
            raise fail(
                f"Cannot listen on HOST {host!r}, PORT {port}: {error.strerror}. {fix}"
            ) from error

    @staticmethod
    def _prepare_database() -> None:
        try:
            ensure_migrated()
        except DatabaseNotReady as error:
            raise fail(error) from error
        registry.sync()
        seeding.sync()
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
        kind = actions.find_type(None)
        if not deployment.current().supports_images and not kind.runs_without_image:
            raise fail(
                f"DEFAULT_SANDBOX_TYPE names {kind.name!r}, which needs an image, and the {name} "
                f"deployer has none: set CONTAINER_DEPLOYMENT=docker, or "
                f"DEFAULT_SANDBOX_TYPE=base."
            )
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
        if adopted := Sandbox.objects.live().count():
            self.stdout.write(f"Adopted:  {adopted} sandboxes that an earlier server left")
        self.stdout.flush()

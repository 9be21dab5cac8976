"""The web server: gunicorn with uvicorn's ASGI worker, on a socket that is bound already."""

from __future__ import annotations

import logging
import socket
from typing import Any

from django.conf import settings
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger
from uvicorn_worker import UvicornWorker

from sandboxplatform.processes import die_with_parent

KEEP_ALIVE_SECONDS = 75
WORKER_TIMEOUT_SECONDS = 60
EXTRA_SECONDS = 5
"""What a worker may take to close after its requests have had SHUTDOWN_TIMEOUT."""


class PlatformLogger(Logger):
    """Leave gunicorn's messages to the platform's own logging."""

    def setup(self, cfg: object) -> None:
        self.error_log.propagate = True
        # Its info lines tell of pids and boots, which the start-up lines say better.
        self.error_log.setLevel(logging.WARNING)
        self.access_log.propagate = False


def _is_no_false_alarm(record: logging.LogRecord) -> bool:
    """Drop what uvicorn says of each WebSocket that was refused with an HTTP status."""
    return record.getMessage() != "ASGI callable returned without completing handshake."


class Worker(UvicornWorker):
    """Serve ASGI on uvloop and httptools; requests in flight have SHUTDOWN_TIMEOUT at the end."""

    CONFIG_KWARGS = {
        "loop": "uvloop",
        "http": "httptools",
        "ws": "websockets-sansio",
        "lifespan": "on",
        "access_log": False,
        "server_header": False,
        "date_header": False,
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("uvicorn.error", "uvicorn.access"):
            logger = logging.getLogger(name)
            logger.handlers = []
            logger.propagate = name == "uvicorn.error"
            logger.setLevel(logging.WARNING)
            logger.addFilter(_is_no_false_alarm)
        self.config.timeout_graceful_shutdown = settings.PLATFORM.SHUTDOWN_TIMEOUT


class WebServer(BaseApplication):
    """gunicorn, configured here and not from its command line or files."""

    def __init__(self, application: object, listener: socket.socket) -> None:
        self._application = application
        self._listener = listener
        super().__init__()

    def load_config(self) -> None:
        platform = settings.PLATFORM
        options = {
            "bind": f"fd://{self._listener.fileno()}",
            "workers": platform.WORKERS,
            "worker_class": "sandboxplatform.web.Worker",
            "timeout": WORKER_TIMEOUT_SECONDS,
            "graceful_timeout": platform.SHUTDOWN_TIMEOUT + EXTRA_SECONDS,
            "keepalive": KEEP_ALIVE_SECONDS,
            "logger_class": PlatformLogger,
            "post_fork": lambda arbiter, worker: die_with_parent(arbiter.pid),
            "proc_name": "runsandboxserver",
            # Behind a proxy on this machine only; others could forge the headers.
            "forwarded_allow_ips": "127.0.0.1",
            "control_socket_disable": True,
        }
        for name, value in options.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> object:
        return self._application


def listen(host: str, port: int) -> socket.socket:
    """Return a bound and listening socket; OSError where the address cannot be had."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    listener.set_inheritable(True)
    return listener

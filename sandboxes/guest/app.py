"""The routes of the guest, who may use them, and what an error looks like."""

from __future__ import annotations

import errno
import hmac
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from .binding import Binding
from .config import Config
from .exchange import answer
from .kernel.cells import Cells
from .mcp_servers.routes import McpServers
from .shell import Shell
from .watcher import Watcher
from .workspace.routes import WorkspaceRoutes

PROTOCOL = 1
REFUSAL = "x-guest-refusal"
"""Says of a 403 whether it is the secret that is wrong, or the system that forbids something."""

FEATURES = ["bind", "ipython", "mcp", "shell", "watcher", "workspace"]


class Guest:
    """The parts of one running guest, and the ASGI application over them."""

    def __init__(self, config: Config) -> None:
        self.shell = Shell(config)
        self.cells = Cells(config)
        self.mcp_servers = McpServers(config)
        self.watcher = Watcher(config)
        self.workspace = WorkspaceRoutes(config.workspace)
        self.binding = Binding(config, self._use)
        app = Starlette(
            routes=self._routes(),
            exception_handlers={
                HTTPException: _refusal,
                OSError: _system_refusal,
                ClientDisconnect: _nobody_listens,
                Exception: _fault,
            },
        )
        app.router.redirect_slashes = False
        self.app: ASGIApp = RequireSecret(app, config.secret)

    def started(self) -> None:
        """Begin what may take its time once the guest answers."""
        self.mcp_servers.load_configured()

    async def stopping(self) -> None:
        """End connections, inside the event loop."""
        await self.mcp_servers.close()

    def close(self) -> None:
        """Clean up at the very end, when no process runs any more."""
        self.cells.close()

    def _use(self, config: Config) -> None:
        for part in (self.shell, self.cells, self.mcp_servers, self.watcher):
            part.use(config)

    def _routes(self) -> list[Route]:
        return [
            Route("/fastapi/healthz", _healthz),
            Route("/v1/capabilities", _capabilities),
            _post("/v1/bind", self.binding.bind),
            _post("/fastapi/tools/run_ipython_cell", self.cells.run_ipython_cell),
            _post("/fastapi/tools/run_shell_command", self.shell.run_shell_command),
            _post("/fastapi/mcp/add_servers", self.mcp_servers.add_servers),
            Route("/fastapi/mcp/list_tools", self.mcp_servers.list_tools),
            _post("/fastapi/mcp/call_tool", self.mcp_servers.call_tool),
            _post("/fastapi/watcher/commit_changes", self.watcher.commit_changes),
            _post("/fastapi/watcher/generate_diff", self.watcher.generate_diff),
            Route("/fastapi/watcher/git_logs", self.watcher.git_logs),
            *self.workspace.routes("/fastapi/workspace"),
        ]


def _post(path: str, endpoint: Any) -> Route:
    return Route(path, endpoint, methods=["POST"])


async def _healthz(_request: Request) -> Response:
    return PlainTextResponse("OK")


async def _capabilities(_request: Request) -> Response:
    return answer({"guest": "sandboxplatform", "protocol": PROTOCOL, "features": FEATURES})


class RequireSecret:
    """Let through only requests that carry the secret, whatever their path."""

    def __init__(self, app: ASGIApp, secret: str) -> None:
        self._app = app
        self._secret = secret.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._carries_secret(scope):
            refusal = answer(
                {"detail": "The Authorization header does not carry this sandbox's secret."}, 403
            )
            refusal.headers[REFUSAL] = "secret"
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _carries_secret(self, scope: Scope) -> bool:
        # Every header is tried: proxies have been seen to append theirs to the caller's.
        for name, value in scope["headers"]:
            if name == b"authorization":
                scheme, _, token = value.partition(b" ")
                right = hmac.compare_digest(token.strip(), self._secret)
                if right and scheme.lower() == b"bearer":
                    return True
        return False


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  a promise of starlette's, for readers
    detail = error.detail
    if error.status_code in (404, 405) and "endpoint" not in request.scope:
        detail = f"This guest has no {request.method} {request.url.path}."
    elif error.status_code == 405:
        detail = f"{request.url.path} does not take {request.method}."
    response = answer({"detail": detail}, error.status_code)
    response.headers.update(error.headers or {})
    return response


SYSTEM_STATUS = {
    errno.ENOENT: 404,
    errno.EACCES: 403,
    errno.EPERM: 403,
    errno.EROFS: 403,
    errno.EEXIST: 409,
    errno.ENOTDIR: 409,
    errno.EISDIR: 409,
    errno.ENOTEMPTY: 409,
    errno.EINVAL: 409,
    errno.EXDEV: 409,
    errno.ELOOP: 409,
    errno.ENAMETOOLONG: 422,
    errno.EFBIG: 413,
    errno.ENOSPC: 507,
    errno.EDQUOT: 507,
}


async def _system_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, OSError)  # noqa: S101
    status = SYSTEM_STATUS.get(error.errno or 0, 500)
    reason = error.strerror or type(error).__name__
    about = request.query_params.get("path", "")
    response = answer(
        {"detail": f"{request.url.path} failed{about and ' on '}{about}: {reason}."}, status
    )
    if status == 403:
        response.headers[REFUSAL] = "system"
    return response


async def _nobody_listens(_request: Request, _error: Exception) -> Response:
    return Response(status_code=499)


async def _fault(request: Request, error: Exception) -> Response:
    # The traceback goes to the log, by way of uvicorn; the caller gets the cause only.
    detail = f"The guest failed in {request.url.path}: {type(error).__name__}: {error}."
    return answer({"detail": detail}, 500)

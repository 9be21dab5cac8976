"""The RPC routes that reach a guest: the hot path, async from the socket to the guest and back."""

from __future__ import annotations

import json
import logging

from django.http import HttpRequest, HttpResponse
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request

from sandboxes import directory, guests, heartbeat
from sandboxes.directory import Place
from sandboxes.refusals import Ended, NotReachable, Refused, TooSlow
from sandboxes.wire import serializers
from sandboxes.wire.views import RpcView

logger = logging.getLogger(__name__)

HEALTH_SECONDS = 5.0


def _function(name: str, description: str, argument: str, meaning: str) -> dict[str, object]:
    parameters = {
        "type": "object",
        "properties": {argument: {"type": "string", "description": meaning}},
        "required": [argument],
    }
    function = {"name": name, "description": description, "parameters": parameters}
    return {"name": name, "json_schema": {"type": "function", "function": function}}


GENERIC_TOOLS = {
    "run_ipython_cell": _function(
        "run_ipython_cell", "Run an IPython cell.", "code", "IPython code to execute"
    ),
    "run_shell_command": _function(
        "run_shell_command", "Run a shell command.", "command", "Shell command to execute"
    ),
}


class GuestRefused(Exception):
    """The guest answered with an error of its own."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def _detail_of(body: bytes) -> str:
    """Return the detail of a guest's error answer, which may come from an older image."""
    try:
        found = json.loads(body)
    except ValueError:
        return body[:500].decode(errors="replace")
    detail = found.get("detail") if isinstance(found, dict) else None
    if isinstance(detail, str):
        # The reference's guest ends its details with a traceback.
        return detail.partition(": Traceback (most recent call last)")[0]
    return json.dumps(detail if detail is not None else found)


def tool_error(text: str) -> dict[str, object]:
    """Return a tool result that says what went wrong."""
    content = {"type": "text", "text": text, "annotations": None, "description": "error"}
    return {"meta": None, "content": [content], "isError": True}


class GuestView(RpcView):
    """An RPC route answered by the sandbox's guest. Subclasses ask()."""

    view_is_async = True
    is_use = False
    """Does it leave something behind in the sandbox?"""

    async def dispatch(self, request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
        """Do what DRF's dispatch does, without leaving the event loop where nothing blocks."""
        self.args, self.kwargs = args, kwargs
        self.request = drf_request = self.initialize_request(request)
        self.headers = self.default_response_headers
        try:
            self.initial(drf_request)
            if request.method != "POST":
                self.http_method_not_allowed(drf_request)
            fields = self.validated(drf_request)
            place = await directory.find(drf_request.user, fields.pop("identity"))
            async with heartbeat.during(place):
                data = await self.ask(place, **fields)
            return HttpResponse(
                b'{"data":' + data + b"}",
                content_type="application/json",
                headers={name: value for name, value in self.headers.items() if name != "Allow"},
            )
        except Exception as error:  # as in DRF's dispatch: the handler raises what it does not know
            response = self.handle_exception(error)
        return self.finalize_response(drf_request, response)

    def perform_content_negotiation(
        self, request: Request, force: bool = False
    ) -> tuple[JSONRenderer, str]:
        # There is one form of answer, whatever a client says it accepts.
        return JSONRenderer(), JSONRenderer.media_type

    async def ask(self, place: Place, **fields: object) -> bytes:
        """Return the JSON text of the answer's data."""
        raise NotImplementedError

    async def call(self, place: Place, method: str, path: str, **options: object) -> bytes:
        """
        Call the guest; raise GuestRefused, TooSlow, or why nobody answers there.

        One that died before it was ever used has another in its place, one that was recycled at
        this moment is restored, and the caller need not know; but what may have run once is not
        run again.
        """
        try:
            code, body = await self._reach(place, method, path, **options)
        except guests.Unreachable as error:
            if error.sent and (place.used or self.is_use):
                raise await guests.why_unreachable(place) from error
            place = await directory.replacement(place)
            try:
                code, body = await self._reach(place, method, path, **options)
            except guests.Unreachable as again:
                raise await guests.why_unreachable(place) from again
        if code >= 400:
            raise GuestRefused(code, _detail_of(body))
        return body

    async def _reach(
        self, place: Place, method: str, path: str, **options: object
    ) -> tuple[int, bytes]:
        if place.used or not self.is_use:
            return await guests.call(place, method, path, **options)
        try:
            async with heartbeat.using(place):
                return await guests.call(place, method, path, **options)
        except guests.Unreachable as error:
            if error.sent:
                await heartbeat.note_use(place, 0.0)
            raise


class CheckHealth(GuestView):
    """Does the sandbox's guest answer?"""

    body = serializers.Identity

    async def ask(self, place: Place) -> bytes:
        try:
            await self.call(place, "GET", "/fastapi/healthz", limit=HEALTH_SECONDS)
        except (GuestRefused, TooSlow, Ended, NotReachable):
            return b"false"
        return b"true"


class ListTools(GuestView):
    """The sandbox's tools by group: generic, and one group per MCP server."""

    body = serializers.ListTools

    async def ask(self, place: Place, tool_type: str | None = None) -> bytes:
        groups: dict[str, object] = {}
        if tool_type != "generic":
            try:
                groups = json.loads(await self.call(place, "GET", "/fastapi/mcp/list_tools"))
            except GuestRefused as error:
                raise Refused(f"The sandbox could not list its tools: {error}") from error
        groups["generic"] = GENERIC_TOOLS
        chosen = {tool_type: groups.get(tool_type, {})} if tool_type else groups
        return json.dumps(chosen).encode()


class CallTool(GuestView):
    """Run a tool. One that failed is a result with isError, not an error of the route."""

    body = serializers.CallTool
    is_use = True

    async def ask(
        self, place: Place, tool_name: str, arguments: dict[str, object] | None = None
    ) -> bytes:
        arguments = arguments or {}
        if tool_name in GENERIC_TOOLS:
            path, body = f"/fastapi/tools/{tool_name}", arguments
        else:
            path = "/fastapi/mcp/call_tool"
            body = {"tool_name": tool_name, "arguments": arguments}
        try:
            return await self.call(place, "POST", path, json=body)
        except GuestRefused as error:
            return json.dumps(tool_error(f"{tool_name} failed: {error}")).encode()
        except TooSlow:
            text = (
                f"{tool_name} did not answer within {place.timeout:g} s; give it less to do at "
                f"once, or raise the sandbox type's timeout (RUNTIME_SANDBOX_TIMEOUT)."
            )
            return json.dumps(tool_error(text)).encode()


class AddMcpServers(GuestView):
    """Start MCP servers in the sandbox, or connect it to them."""

    body = serializers.AddMcpServers
    is_use = True

    async def ask(
        self, place: Place, server_configs: dict[str, object], overwrite: bool = False
    ) -> bytes:
        body = {"server_configs": server_configs, "overwrite": overwrite}
        try:
            await self.call(place, "POST", "/fastapi/mcp/add_servers", json=body)
        except GuestRefused as error:
            raise Refused(str(error), field="server_configs") from error
        return b'"OK"'

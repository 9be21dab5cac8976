"""Turn the messages of one cell into a tool result."""

from __future__ import annotations

import base64
import re
from typing import Any

from .. import results
from ..capture import Capture

IMAGE_LIMIT = 32 * 1024 * 1024
"""Bytes of base64 kept of all images of one cell."""

IMAGE_TYPES = ("image/png", "image/jpeg", "image/svg+xml")
TEXT_TYPES = ("text/markdown", "text/latex", "text/html", "application/json")

ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")

Content = dict[str, Any]


class CellOutput:
    """
    What a cell has shown so far.

    Message types and their contents are those of Jupyter's messaging protocol 5.4:
    https://jupyter-client.readthedocs.io/en/stable/messaging.html
    """

    def __init__(self, limit: int) -> None:
        self._streams = {"stdout": Capture(limit), "stderr": Capture(limit)}
        self._images: list[tuple[str | None, dict[str, Any]]] = []
        self._image_bytes = 0
        self._images_dropped = 0
        self._clear_next = False

    def receive(self, kind: str, content: Content) -> None:
        if kind == "clear_output":
            self._clear_next = True
            if not content.get("wait"):
                self._clear()
            return
        take = {
            "stream": self._on_stream,
            "execute_result": self._on_result,
            "display_data": self._on_display,
            "update_display_data": self._on_update,
            "error": self._on_error,
        }.get(kind)
        if take is not None:
            self._clear()
            take(content)

    def take_reply(self, reply: Content) -> None:
        """Add what only the reply carries: the pages that `object?` shows."""
        for payload in reply.get("payload") or ():
            if payload.get("source") == "page":
                self._say(ANSI.sub("", payload.get("data", {}).get("text/plain", "")))

    def warn(self, message: str) -> None:
        """Add a line of the guest's own to stderr."""
        self._streams["stderr"].add(f"{message}\n".encode())

    def result(self, *, failed: bool) -> dict[str, Any]:
        if self._images_dropped:
            self.warn(
                f"{self._images_dropped} images were left out: one cell can return "
                f"{IMAGE_LIMIT // 1024**2} MiB of them. Write more to files."
            )
        content = [results.text(self._streams["stdout"].text(), "stdout")]
        stderr = self._streams["stderr"].text()
        if stderr:
            content.append(results.text(stderr, "stderr"))
        content += [image for _, image in self._images]
        return results.result(content, failed=failed)

    def _clear(self) -> None:
        if self._clear_next:
            self._clear_next = False
            for stream in self._streams.values():
                stream.clear()
            self._images.clear()
            self._image_bytes = 0

    def _say(self, line: str) -> None:
        text = line if line.endswith("\n") else f"{line}\n"
        self._streams["stdout"].add(text.encode("utf-8", "replace"))

    def _on_stream(self, content: Content) -> None:
        stream = self._streams.get(content.get("name", ""))
        if stream is not None:
            stream.add(content["text"].encode("utf-8", "replace"))

    def _on_result(self, content: Content) -> None:
        data = content.get("data", {})
        plain = data.get("text/plain")
        if plain is not None:
            # IPython's own terminal puts a result of several lines below its prompt.
            gap = "\n" if "\n" in plain else ""
            self._say(f"Out[{content.get('execution_count')}]: {gap}{plain}")
        self._add_images(data, None)

    def _on_display(self, content: Content) -> None:
        data = content.get("data", {})
        if not self._add_images(data, _display_id(content)):
            text = _readable(data)
            if text:
                self._say(text)

    def _on_update(self, content: Content) -> None:
        wanted = _display_id(content)
        shown = [image for image in self._images if image[0] == wanted]
        if shown:
            self._images = [image for image in self._images if image[0] != wanted]
            self._image_bytes -= sum(len(image["data"]) for _, image in shown)
        self._on_display(content)

    def _on_error(self, content: Content) -> None:
        lines = content.get("traceback") or [f"{content.get('ename')}: {content.get('evalue')}"]
        self._say(ANSI.sub("", "\n".join(lines)))
        if content.get("ename") == "StdinNotImplementedError":
            self.warn(
                "run_ipython_cell: nobody can answer input() here; put the value in the code."
            )

    def _add_images(self, data: Content, display_id: str | None) -> bool:
        """Keep the first form of an image there is; return whether there was one."""
        for kind in IMAGE_TYPES:
            if kind not in data:
                continue
            value = data[kind]
            if kind == "image/svg+xml":
                encoded = base64.b64encode(value.encode("utf-8", "replace")).decode()
            else:
                encoded = "".join(value.split())
            if self._image_bytes + len(encoded) > IMAGE_LIMIT:
                self._images_dropped += 1
            else:
                self._image_bytes += len(encoded)
                self._images.append((display_id, results.image(encoded, kind)))
            return True
        return False


def _display_id(content: Content) -> str | None:
    return (content.get("transient") or {}).get("display_id")


def _readable(data: Content) -> str:
    """Choose the text of a display: the plain one, unless that only names the object shown."""
    plain = data.get("text/plain", "")
    if plain.startswith("<IPython.core.display."):
        for kind in TEXT_TYPES:
            if kind in data:
                return str(data[kind])
    return plain

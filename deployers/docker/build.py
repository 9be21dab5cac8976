"""Build an image with the engine's classic builder, which every engine has."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

from docker.api.build import process_dockerfile
from docker.auth import encode_header, load_config
from docker.utils.build import tar

from deployers.docker.engine import Engine, refusal
from deployers.errors import Rejected, Unavailable

# A RUN step may compile for long without a word.
BUILD_SILENCE_SECONDS = 15 * 60
BUILD_SECONDS = 2 * 60 * 60


def build(
    engine: Engine,
    context: Path,
    *,
    dockerfile: Path | None = None,
    platform: str | None = None,
    no_cache: bool = False,
    network: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> Generator[str, None, str]:
    """
    Build with the classic builder; closing the generator makes the engine give up the build.

    The context goes into a temporary file on disk, not into memory.
    """
    if not context.is_dir():
        raise Rejected(f"The build context {context} is not a directory.")
    chosen = dockerfile.resolve() if dockerfile else context.resolve() / "Dockerfile"
    if not chosen.is_file():
        raise Rejected(f"There is no Dockerfile at {chosen}.")
    query = {
        "dockerfile": "",
        "rm": True,
        "forcerm": True,
        "nocache": no_cache,
        "platform": platform,
        "networkmode": network,
        "labels": json.dumps(dict(labels or {})),
    }
    log = BuildLog(f"build {chosen}")
    deadline = time.monotonic() + BUILD_SECONDS
    with (
        _packed(context.resolve(), chosen) as (name, archive),
        engine.call(log.doing, timeout=BUILD_SILENCE_SECONDS) as api,
    ):
        # Not api.build(): closing its generator leaves the connection open, and the engine
        # goes on building until that is closed.
        response = api.post(
            f"{api.base_url}/v{api.api_version}/build",
            params={**query, "dockerfile": name},
            data=archive,
            headers=_credentials(),
            stream=True,
            timeout=BUILD_SILENCE_SECONDS,
        )
        with closing(response):
            if not response.ok:
                answer = response.json().get("message", response.reason)
                raise refusal(answer, log.doing, response.status_code)
            for line in response.iter_lines():
                yield from log.read(json.loads(line))
                if time.monotonic() > deadline:
                    raise Unavailable(f"Docker could not {log.doing} in {BUILD_SECONDS} s.")
    return log.image_id()


class BuildLog:
    """Turn the messages of a build into lines, the image's id, or the failing step."""

    def __init__(self, doing: str) -> None:
        self.doing = doing
        self._step = ""
        self._rest = ""
        self._image_id = ""

    def read(self, message: Mapping[str, object]) -> Iterable[str]:
        if "error" in message:
            answer = str(message["error"])
            if self._step:
                answer = f"{self._step} failed: {answer}"
            # The code in errorDetail is that of the command which failed, not an HTTP status.
            raise refusal(answer, self.doing, 400)
        self._image_id = (message.get("aux") or {}).get("ID", self._image_id)
        text = message.get("stream") or message.get("status") or ""
        if "stream" not in message and text:
            text = f"{text} {message.get('id', '')} {message.get('progress', '')}".strip() + "\n"
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line.startswith("Step "):
                self._step = line.strip()
            yield line

    def image_id(self) -> str:
        if not self._image_id:
            raise Unavailable(f"Docker could not {self.doing}: it ended without an image.")
        return self._image_id


@contextmanager
def _packed(context: Path, dockerfile: Path) -> Iterator[tuple[str, BinaryIO]]:
    """Put what .dockerignore leaves of a context into a temporary tar; name its Dockerfile."""
    ignore = context / ".dockerignore"
    lines = ignore.read_text().splitlines() if ignore.is_file() else []
    patterns = [line.strip() for line in lines]
    exclude = [pattern for pattern in patterns if pattern and not pattern.startswith("#")]
    try:
        # A Dockerfile outside of the context travels in the tar under a random name.
        name, text = process_dockerfile(str(dockerfile), str(context))
        archive = tar(str(context), exclude=exclude, dockerfile=(name, text))
    except OSError as error:
        raise Rejected(f"The build context {context} cannot be packed: {error}.") from error
    with archive:
        yield name, archive


def _credentials() -> dict[str, str]:
    known = load_config().get_all_credentials()
    return {"X-Registry-Config": encode_header(known)} if known else {}

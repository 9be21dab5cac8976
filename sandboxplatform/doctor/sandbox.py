"""One real sandbox, made, used and released as a caller's would be."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import aiohttp

from deployers.base import Isolation
from deployers.errors import DeployerError
from deployers.observation import Phase
from sandboxes import actions, deployment, directory, guests, lifecycle, registry, tokens
from sandboxes.models import Sandbox, SandboxType
from sandboxes.refusals import CapReached, Refusal
from sandboxes.states import State, StopReason
from sandboxes.tokens import Caller
from sandboxplatform.doctor import interruption
from sandboxplatform.doctor.findings import Finding, fail, ok, skip, warn
from sandboxplatform.doctor.subject import Subject

GUEST_SECONDS = 15.0
LIFETIME = timedelta(minutes=10)
MARK = "doctor"
"""Key of the sandbox's meta by which its row is found again, whatever happened."""

FILE = "/fastapi/workspace/file?path=doctor.txt"
REBUILD = "Its guest is older than this server, or broken: build the type's image again."


class WrongAnswer(Exception):
    """The guest answered, but not what it should have; the sentence says what."""


class Trial:
    """The life of one sandbox, with what each phase took."""

    def __init__(self, kind: SandboxType, caller: Caller) -> None:
        self._kind = kind
        self._caller = caller
        self._mark = secrets.token_hex(8)
        self._milliseconds: dict[str, float] = {}

    def __str__(self) -> str:
        phases = (f"{name} {ms:.0f} ms" for name, ms in self._milliseconds.items())
        return f"{self._kind.name}: {', '.join(phases)}"

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            self._milliseconds[name] = (time.monotonic() - begun) * 1000

    def _lifetime(self) -> timedelta:
        """Return after what time the reaper ends it, should this process be killed."""
        longest = self._kind.lifetime_seconds
        return min(LIFETIME, timedelta(seconds=longest)) if longest else LIFETIME

    def run(self) -> Iterator[Finding]:
        """Yield what went wrong, if anything; raise as actions.create() does."""
        with self._phase("start"):
            sandbox = actions.create(
                self._caller,
                type_name=self._kind.name,
                meta={MARK: self._mark},
                lifetime=self._lifetime(),
            )
        try:
            asyncio.run(self._use(sandbox.name))
        except WrongAnswer as error:
            yield fail(str(error), REBUILD)
        except (guests.Unreachable, aiohttp.ClientError, TimeoutError) as error:
            why = actions.explain_silence(sandbox.name, actor=self._caller.actor)
            yield fail(f"its guest cannot be reached: {error or type(error).__name__}", str(why))

    async def _use(self, name: str) -> None:
        word = secrets.token_hex(8)
        try:
            with self._phase("shell"):
                place = await directory.find(self._caller, name)
                command = {"command": f"echo {word}"}
                path = "/fastapi/tools/run_shell_command"
                self._expect_word(await self._ask(place, "POST", path, json=command), word)
            with self._phase("write"):
                await self._ask(place, "PUT", FILE, data=word.encode())
            with self._phase("read"):
                read = await self._ask(place, "GET", f"{FILE}&format=bytes")
                if read != word.encode():
                    raise WrongAnswer("its guest gave another file back than it was given")
        finally:
            await guests.connections().close()

    @staticmethod
    def _expect_word(answer: bytes, word: str) -> None:
        try:
            said = json.loads(answer)["content"][0]["text"]
        except (ValueError, LookupError, TypeError):
            said = ""
        if said != f"{word}\n":
            shown = answer[:200].decode(errors="replace")
            raise WrongAnswer(f"a shell command answered {shown!r}")

    @staticmethod
    async def _ask(place: directory.Place, method: str, path: str, **options: object) -> bytes:
        async with (
            asyncio.timeout(GUEST_SECONDS),
            guests.request(place, method, path, **options) as response,
        ):
            body = await response.read()
        if response.status >= 400:
            shown = body[:200].decode(errors="replace")
            raise WrongAnswer(f"its guest answered {method} {path}: HTTP {response.status} {shown}")
        return body

    def end(self) -> list[Finding]:
        """Release what was made, however far it came; return what is left of it nevertheless."""
        left = []
        with interruption.put_off(), self._phase("release"):
            mine = list(Sandbox.objects.filter(**{f"meta__{MARK}": self._mark}))
            live = [sandbox for sandbox in mine if sandbox.state != State.STOPPED]
            actions.stop_all(live, reason=StopReason.RELEASED, actor=self._caller.actor)
            for sandbox in mine:
                try:
                    left += self._remains(sandbox)
                except DeployerError as error:
                    left.append(f"{sandbox.name} may not be gone: {error}")
        fix = (
            "The server's reaper removes it, or python manage.py reapsandboxes --once; its row in "
            "the admin says what stands in the way."
        )
        return [fail(sentence, fix) for sentence in left]

    @staticmethod
    def _remains(sandbox: Sandbox) -> Iterator[str]:
        sandbox.refresh_from_db()
        if sandbox.state != State.STOPPED:
            yield f"{sandbox.name} is not removed yet: {sandbox.detail}"
            return
        deployer = deployment.of(sandbox)
        if deployer.inspect(sandbox.name).phase is not Phase.ABSENT:
            # A start that was interrupted may have ended at the engine after the removal.
            deployer.remove(sandbox.name)
        if (seen := deployer.inspect(sandbox.name)).phase is not Phase.ABSENT:
            yield f"{sandbox.name} is still {seen.phase}"
        if sandbox.workspace and Path(sandbox.workspace).exists():
            yield f"its workspace {sandbox.workspace} is still there"


def look(subject: Subject) -> Iterator[Finding]:
    registry.sync()
    deployer = deployment.current()
    try:
        kind = actions.find_type(subject.sandbox_type)
        image = registry.image_of(kind.name, kind.image)
        if deployer.supports_images and deployer.find_image(image) is None:
            yield skip(f"the image {image} is not here")
            return
        token = subject.platform.BEARER_TOKEN
        trial = Trial(kind, tokens.authenticate(f"Bearer {token}" if token else ""))
    except Refusal as error:
        yield fail("no sandbox can be asked for", str(error))
        return
    try:
        problems = list(_problems(trial, is_container=deployer.isolation is Isolation.CONTAINER))
    finally:
        remains = trial.end()
    yield from [*problems, *remains]
    yield ok(f"{trial}{'' if remains else '; gone'}")


def _problems(trial: Trial, *, is_container: bool) -> Iterator[Finding]:
    try:
        yield from trial.run()
    except lifecycle.StartFailed as error:
        advice = (
            "\nIf the container itself runs well, this machine cannot reach it: set "
            "SANDBOX_ACCESS_HOST to an address of the engine's machine."
        )
        yield fail("it did not start", f"{error}{advice if is_container else ''}")
    except CapReached as error:
        yield warn("there is no room for one more sandbox", str(error))
    except Refusal as error:
        yield fail("the server would refuse to make one", str(error))

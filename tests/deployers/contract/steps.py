"""What the tests of the contract are made of, and a backend's further ones."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from deployers.base import Deployer
from deployers.observation import Observation, Phase
from deployers.specs import SandboxSpec
from tests.deployers.contract.calls import TOKEN, guest_answers
from tests.ports import free_port
from tests.waiting import eventually


class DeployerSteps:
    """The hooks, fixtures and steps of the contract, also for a backend's further tests."""

    image = ""
    guest_port = 80

    can_run_inside = True
    """Does run_inside() work here?"""

    knows_exit_codes = True
    """Is Observation.exit_code set for a sandbox that ended by itself?"""

    # Hooks of the subclass.

    @pytest.fixture
    def deployer(self) -> Iterator[Deployer]:
        """Give a deployer with an instance id of its own; close it afterwards."""
        raise NotImplementedError

    def other_instance(self, deployer: Deployer) -> Deployer:
        """Return a deployer on the same infrastructure with another instance id."""
        raise NotImplementedError

    def run_inside(self, deployer: Deployer, name: str, command: str) -> tuple[int, str]:
        """
        Run a shell command as the guest would; return exit code and stdout + stderr.

        It must see the guest's user, environment, limits, files and network.
        """
        raise NotImplementedError

    def let_die(self, deployer: Deployer, name: str) -> int:
        """Make the sandbox end by itself, e.g. by an exit of the guest; return its exit code."""
        raise NotImplementedError

    def say(self, deployer: Deployer, name: str, line: str) -> None:
        """Make the guest write a line to its standard output. For supports_logs only."""
        raise NotImplementedError

    def make_half(self, deployer: Deployer, spec: SandboxSpec) -> None:
        """Leave what a start() that was killed in the middle leaves."""
        raise NotImplementedError

    def make_foreign(
        self, deployer: Deployer, spec: SandboxSpec
    ) -> AbstractContextManager[Callable[[], bool]]:
        """
        Put something of the same name there that is not a sandbox of ours.

        A context manager; its value answers whether the thing is still intact.
        """
        pytest.skip("nothing foreign can have the name of a sandbox here")

    def assert_no_way_out(self, deployer: Deployer, name: str) -> None:
        """Check from inside that nothing outside is reached; here: there is no default route."""
        routes = self.inside(deployer, name, "cat /proc/net/route").splitlines()[1:]
        assert [line for line in routes if line.split()[1] == "00000000"] == []

    def leftovers(self, deployer: Deployer) -> list[str]:
        """List all that exists of this instance's sandboxes, seen without the deployer."""
        raise NotImplementedError

    def spec_defaults(self) -> dict[str, object]:
        """Return further fields for every spec."""
        return {}

    # Shared fixtures and steps.

    @pytest.fixture
    def make_spec(self, deployer) -> Iterator[Callable[..., SandboxSpec]]:
        names = []

        def make(**fields) -> SandboxSpec:
            given = {
                "name": f"contract-{secrets.token_hex(6)}",
                "image": self.image,
                "guest_port": self.guest_port,
                "host_port": free_port() if deployer.needs_host_port else None,
                "env": {"SECRET_TOKEN": TOKEN},
                **self.spec_defaults(),
                **fields,
            }
            names.append(given["name"])
            return SandboxSpec(**given)

        yield make
        for name in names:
            deployer.remove(name)
        assert self.leftovers(deployer) == []

    def start(self, deployer: Deployer, spec: SandboxSpec) -> Observation:
        """Start a sandbox and wait, as the caller would, until its guest answers."""
        deployer.validate(spec)
        seen = deployer.start(spec)
        assert seen.name == spec.name
        assert seen.phase in (Phase.STARTING, Phase.READY)

        def ready() -> Observation | None:
            now = deployer.inspect(spec.name)
            return now if now.phase is Phase.READY and guest_answers(now.url) else None

        seen = eventually(ready)
        assert seen, f"the guest did not answer: {deployer.inspect(spec.name)}"
        return seen

    def inside(self, deployer: Deployer, name: str, command: str) -> str:
        """Run a command that must succeed; return its output."""
        code, output = self.run_inside(deployer, name, command)
        assert code == 0, f"{command!r} ended with {code}: {output}"
        return output.strip()

    def need(self, deployer: Deployer, *flags: str) -> None:
        for flag in flags:
            owner = self if flag == "can_run_inside" else deployer
            if not getattr(owner, flag):
                pytest.skip(f"{type(deployer).__name__} does not have {flag}")

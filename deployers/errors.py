"""What a deployer may raise. Each carries a sentence a person can act on."""

from __future__ import annotations


class DeployerError(Exception):
    """Something went wrong between us and the infrastructure; use a subclass."""


class Unavailable(DeployerError):
    """The infrastructure cannot do it now; the same call may work later."""


class Rejected(DeployerError):
    """The infrastructure will not do it; the same call will fail again until something is changed."""


class UnsupportedSpec(Rejected):
    """The spec asks for an ability that this deployer does not have."""


class PortTaken(Unavailable):
    """A stranger listens on the host port of the spec; another port will do."""

    def __init__(self, sentence: str, *, port: int | None) -> None:
        super().__init__(sentence)
        self.port = port

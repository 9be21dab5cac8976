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

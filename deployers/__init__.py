"""Adapters to the infrastructure that sandboxes run on. They know nothing of our models."""

from __future__ import annotations

from importlib import import_module

from deployers.base import Deployer

BACKENDS = {
    "docker": "deployers.docker.DockerDeployer",
    "local": "deployers.bubblewrap.BubblewrapDeployer",
    "fake": "deployers.fake.FakeDeployer",
}


def make_deployer(name: str, **options: object) -> Deployer:
    """Build the deployer called name with its options; KeyError for an unknown name."""
    module, _, cls = BACKENDS[name].rpartition(".")
    return getattr(import_module(module), cls)(**options)

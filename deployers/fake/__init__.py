"""Sandboxes in memory, for tests and demos."""

from deployers.fake.deployer import FakeDeployer

__all__ = ["FakeDeployer"]

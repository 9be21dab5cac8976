"""Sandboxes as containers of one Docker engine."""

from deployers.docker.deployer import DockerDeployer

__all__ = ["DockerDeployer"]

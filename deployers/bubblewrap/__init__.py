"""Sandboxes on this very machine, through bubblewrap."""

from deployers.bubblewrap.deployer import BubblewrapDeployer

__all__ = ["BubblewrapDeployer"]

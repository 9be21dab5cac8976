"""The streaming proxy to the guests: any method and WebSockets, both ways."""

from sandboxes.proxy.answers import refuse
from sandboxes.proxy.application import PREFIX, proxy

__all__ = ["PREFIX", "proxy", "refuse"]

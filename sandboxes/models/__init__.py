"""One model a file; what must always hold is a named constraint of the table."""

from sandboxes.models.api_token import ApiToken
from sandboxes.models.event import Event
from sandboxes.models.image_build import ImageBuild
from sandboxes.models.installation import Installation
from sandboxes.models.port_lease import PortLease
from sandboxes.models.sandbox import Sandbox
from sandboxes.models.sandbox_type import SandboxType
from sandboxes.models.session import Session

__all__ = [
    "ApiToken",
    "Event",
    "ImageBuild",
    "Installation",
    "PortLease",
    "Sandbox",
    "SandboxType",
    "Session",
]

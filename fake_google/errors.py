"""The errors of the stand-ins, with Google's texts."""

from __future__ import annotations

from typing import Any

from fake_google.state import LocalError


class ApiNotEnabled(LocalError):
    """The called API is off."""


class NotFound(LocalError):
    """A reference names something that doesn't exist."""


class Refused(LocalError):
    """Google would refuse this valid call in the current state."""


class Unreachable(LocalError):
    """Cloud Run's response to a caller without the permission to invoke the service."""


class Unsupported(LocalError):
    """Something declared that the stand-ins can't imitate, so that going on would prove nothing."""


class BootRefused(LocalError):
    """A service exists, but its container doesn't start."""

    def __init__(self, why: str, resource_id: str, outputs: dict[str, Any]) -> None:
        super().__init__(why)
        self.resource_id, self.outputs = resource_id, outputs

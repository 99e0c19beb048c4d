"""What Google answers when it refuses, as the one who asked reads it."""

from __future__ import annotations

from typing import Any

from fake_google.state import LocalError


class ApiNotEnabled(LocalError):
    """A call of an API that is off."""


class NotFound(LocalError):
    """A reference that leads nowhere."""


class Refused(LocalError):
    """A call that is understood and not allowed as things are."""


class Unreachable(LocalError):
    """Cloud Run's answer to a caller who may not invoke the service."""


class Unsupported(LocalError):
    """Something declared that can't be imitated, where going on would prove nothing."""


class BootRefused(LocalError):
    """A service that exists and whose container does not start."""

    def __init__(self, why: str, resource_id: str, outputs: dict[str, Any]) -> None:
        super().__init__(why)
        self.resource_id, self.outputs = resource_id, outputs

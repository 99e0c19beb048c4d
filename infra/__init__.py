"""The deployment's resources on Google Cloud, and the settings and facts that they depend on."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .tracking_server import TrackingServer

__all__ = ["TrackingServer"]


def __getattr__(name: str) -> Any:
    """Imports `TrackingServer` on demand, so that `infra.facts` can be used without Pulumi."""
    if name == "TrackingServer":
        from .tracking_server import TrackingServer

        return TrackingServer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""What is declared on Google Cloud: one module per thing, its access rules inside it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .tracking_server import TrackingServer

__all__ = ["TrackingServer"]


def __getattr__(name: str) -> Any:
    """Imported when asked for: the tables of regions and tiers are read where Pulumi isn't."""
    if name == "TrackingServer":
        from .tracking_server import TrackingServer

        return TrackingServer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""The plug-in that MLflow finds through this package's entry point and imports at its start."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracking_server.artifacts.repository import KeylessGCSArtifactRepository


def gcs_artifact_repository(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
) -> "KeylessGCSArtifactRepository":
    """Returns the repository of a `gs://` address. The first call imports the storage library."""
    from tracking_server.artifacts.repository import KeylessGCSArtifactRepository

    return KeylessGCSArtifactRepository(
        artifact_uri, tracking_uri=tracking_uri, registry_uri=registry_uri
    )

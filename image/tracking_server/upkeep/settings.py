"""The settings that the upkeep job reads from its environment variables."""

from collections.abc import Mapping
from dataclasses import dataclass

from tracking_server.boot.settings import Variables

MAX_DAYS = 3650


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreVersions:
    """The versions of the only secrets that the job reads."""

    artifact_url: str
    database_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UpkeepSettings:
    """The job's settings, checked.

    - `cleanup_after_days`: 0: nothing is deleted.
    - `archive_traces_after_days`: 0: all spans stay in the database.
    """

    project: str
    secrets: StoreVersions
    cleanup_after_days: int
    archive_traces_after_days: int
    cloudsql_root: str
    secret_manager_endpoint: str
    boot_patience: int


def load(env: Mapping[str, str]) -> UpkeepSettings:
    """Read the settings from the environment and check all of them.

    Raises:
        BootError: naming every variable that is missing or malformed, with an example.
    """
    given = Variables(env)
    settings = UpkeepSettings(
        project=given.text("GCP_PROJECT", "my-project"),
        secrets=StoreVersions(
            artifact_url=given.secret("artifact_url"), database_url=given.secret("database_url")
        ),
        cleanup_after_days=given.number("CLEANUP_AFTER_DAYS", "0", 0, MAX_DAYS),
        archive_traces_after_days=given.number("ARCHIVE_TRACES_AFTER_DAYS", "0", 0, MAX_DAYS),
        cloudsql_root=given.cloudsql_root(),
        secret_manager_endpoint=given.secret_manager_endpoint(),
        boot_patience=given.boot_patience(),
    )
    given.check()
    return settings

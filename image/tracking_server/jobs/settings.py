"""The settings that the worker reads from its environment variables."""

from collections.abc import Mapping
from dataclasses import dataclass

from tracking_server.boot.settings import Network, Variables


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSecrets:
    """The versions of the only secrets that the worker reads."""

    artifact_url: str
    database_url: str
    kek_passphrase: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """The worker's settings, checked."""

    project: str
    secrets: WorkerSecrets
    internal_networks: tuple[Network, ...]
    cloudsql_root: str
    secret_manager_endpoint: str
    boot_patience: int

    @property
    def kek_version(self) -> int:
        """Returns the passphrase's version, which is the same for MLflow and Secret Manager."""
        return int(self.secrets.kek_passphrase.rpartition("/")[2])


def load(env: Mapping[str, str]) -> WorkerSettings:
    """Read the settings from the environment and check all of them.

    Raises:
        BootError: naming every variable that is missing or malformed, with an example.
    """
    given = Variables(env)
    settings = WorkerSettings(
        project=given.text("GCP_PROJECT", "my-project"),
        secrets=WorkerSecrets(
            artifact_url=given.secret("artifact_url"),
            database_url=given.secret("database_url"),
            kek_passphrase=given.secret("kek_passphrase"),
        ),
        internal_networks=given.networks("INTERNAL_NETWORKS"),
        cloudsql_root=given.cloudsql_root(),
        secret_manager_endpoint=given.secret_manager_endpoint(),
        boot_patience=given.boot_patience(),
    )
    given.check()
    return settings

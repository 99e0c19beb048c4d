"""The settings that the upkeep job reads from its environment variables."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tracking_server.boot.settings import SECRET_VERSION
from tracking_server.errors import BootError

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
    problems: list[str] = []

    def secret(name: str) -> str:
        value = env.get(key := f"{name.upper()}_SECRET", "")
        if not SECRET_VERSION.fullmatch(value):
            problems.append(f"{key} is not a secret's version such as mlflow_{name}/versions/1")
        return value

    def number(key: str, default: str, highest: int) -> int:
        value = env.get(key, default)
        if not (re.fullmatch("[0-9]{1,9}", value) and int(value) <= highest):
            problems.append(f"{key} is {value!r}, wanted a number from 0 to {highest}")
            return 0
        return int(value)

    if not (project := env.get("GCP_PROJECT", "")):
        problems.append("GCP_PROJECT is not set (example: my-project)")
    settings = UpkeepSettings(
        project=project,
        secrets=StoreVersions(
            artifact_url=secret("artifact_url"), database_url=secret("database_url")
        ),
        cleanup_after_days=number("CLEANUP_AFTER_DAYS", "0", MAX_DAYS),
        archive_traces_after_days=number("ARCHIVE_TRACES_AFTER_DAYS", "0", MAX_DAYS),
        cloudsql_root=env.get("CLOUDSQL_ROOT", "/cloudsql"),
        secret_manager_endpoint=env.get(
            "SECRET_MANAGER_ENDPOINT", "https://secretmanager.googleapis.com"
        ),
        boot_patience=number("BOOT_PATIENCE", "100", 100),
    )
    if problems:
        raise BootError("The environment is not complete: " + "; ".join(problems))
    return settings

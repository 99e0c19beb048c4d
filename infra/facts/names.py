"""Names that Google limits; the settings' checks and the components use the same functions."""

from __future__ import annotations

# Random bytes that end names which must not be reused, as hex digits after a hyphen.
SUFFIX_BYTES = 3
ACCOUNT_ID_MAX = 30
BUCKET_NAME_MAX = 63
SECRETS = (
    "artifact_url",
    "database_url",
    "tracking_username",
    "tracking_password",
    "viewer_username",
    "viewer_password",
    "kek_passphrase",
)


def account_id(prefix: str, what: str = "server") -> str:
    """Returns a service account's id. `what` must not be longer than the default.

    The settings' checks only check the default.
    """
    return f"{prefix}-{what}"


def role_id_prefix(prefix: str, what: str = "signer") -> str:
    """Returns a custom role's id without its suffix.

    Role ids can't contain hyphens and names can't contain underscores, so two names never share an
    id. A name that fits an account's id also fits a role's id, which may have 64 characters:
    https://cloud.google.com/iam/docs/reference/rest/v1/projects.roles/create
    """
    return f"{prefix.replace('-', '_')}_{what}"


def secret_id(prefix: str, what: str) -> str:
    return f"{prefix}_{what}"


def upkeep_job(prefix: str) -> str:
    """Returns the name of the upkeep job, and of its schedule."""
    return f"{prefix}-upkeep"


def worker_pool(prefix: str) -> str:
    """Returns the name of the worker pool that runs MLflow's jobs."""
    return f"{prefix}-worker"


def bucket_prefix(project: str, prefix: str, what: str = "artifacts") -> str:
    """Returns the bucket's name without its suffix. `what` must not be longer than the default.

    All buckets of Google Cloud share one namespace. The project makes the name readable; the suffix
    makes it unique, even while a move to another location needs two buckets.
    """
    return f"{project}-{prefix}-{what}"

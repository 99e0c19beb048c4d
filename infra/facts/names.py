"""Names that Google limits, so that `settings` can check what the components will ask for."""

from __future__ import annotations

# Random bytes, in hex after a hyphen, that end a name which must not come back.
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
    """Nothing longer than the default, which `settings` checks."""
    return f"{prefix}-{what}"


def role_id_prefix(prefix: str, what: str = "signer") -> str:
    """Returns a custom role's id without its suffix.

    Role ids can't contain hyphens, and names no underscores, so two names never share an id. A
    name that fits an account's id fits a role's, which may have 64 characters:
    https://cloud.google.com/iam/docs/reference/rest/v1/projects.roles/create
    """
    return f"{prefix.replace('-', '_')}_{what}"


def secret_id(prefix: str, what: str) -> str:
    return f"{prefix}_{what}"


def bucket_prefix(project: str, prefix: str, what: str = "artifacts") -> str:
    """The bucket's name without its suffix. Nothing longer than the default.

    Buckets of all of Google Cloud share one name space: the project makes the name readable,
    the suffix makes it free, also while a move to another location needs both buckets.
    """
    return f"{project}-{prefix}-{what}"

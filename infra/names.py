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


def secret_id(prefix: str, what: str) -> str:
    return f"{prefix}_{what}"


def bucket_prefix(project: str, prefix: str, what: str = "artifacts") -> str:
    """The bucket's name without its suffix. Nothing longer than the default.

    Buckets of all of Google Cloud share one name space: the project makes the name readable,
    the suffix makes it free, also while a move to another location needs both buckets.
    """
    return f"{project}-{prefix}-{what}"

"""The values that all components of a stack share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Scope:
    """A stack's project and region, the prefix of its names, and the key for its data."""

    project: str
    region: str
    prefix: str
    # None: Google's own keys.
    kms_key: str | None

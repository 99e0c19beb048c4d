"""A username and a password, and the previous password during a rotation."""

from dataclasses import dataclass, field
from hashlib import sha256


@dataclass(frozen=True, slots=True)
class Credentials:
    """A username and a password, which `repr` doesn't show."""

    username: str = field(repr=False)
    password: str = field(repr=False)

    def digest(self) -> bytes:
        """Returns the SHA-256 of `username:password`, which HTTP Basic sends in base64."""
        return sha256(f"{self.username}:{self.password}".encode()).digest()


@dataclass(frozen=True, slots=True)
class PreviousCredentials:
    """Credentials that are accepted until a time, in seconds since 1970."""

    credentials: Credentials
    until: float

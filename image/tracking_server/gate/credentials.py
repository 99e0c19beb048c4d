"""A username and a password."""

from dataclasses import dataclass, field
from hashlib import sha256


@dataclass(frozen=True, slots=True)
class Credentials:
    """Kept out of every representation."""

    username: str = field(repr=False)
    password: str = field(repr=False)

    def digest(self) -> bytes:
        """SHA-256 of what HTTP Basic sends of them, before base64."""
        return sha256(f"{self.username}:{self.password}".encode()).digest()

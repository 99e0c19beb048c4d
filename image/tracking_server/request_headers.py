"""Reads the headers of a request."""

from collections.abc import Iterable


def combined(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> str:
    """Returns a header's values, joined by commas, or an empty string if there are none."""
    return b",".join(value for name, value in headers if name == wanted).decode("latin-1").strip()

"""Reads the headers of a request."""

from collections.abc import Iterable


def combined(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> str:
    """Returns a header's values, joined by commas, or an empty string if there are none."""
    values = [value for name, value in headers if name == wanted]
    return b",".join(values).decode("latin-1").strip() if values else ""

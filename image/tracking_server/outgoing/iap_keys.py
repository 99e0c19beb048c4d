"""Fetches the public keys of Identity-Aware Proxy."""

from tracking_server.outgoing.google_api import public_session
from tracking_server.outgoing.response_limits import bound_session

LARGEST, SECONDS = 64 * 1024, 5.0
"""Bytes and seconds of the response, which has some two kilobytes."""


def fetch(address: str) -> dict[str, str]:
    """Returns the keys in PEM, by their ids.

    Raises:
        Exception: if the address doesn't return keys within the limits.
    """
    with public_session() as session:
        bound_session(session, largest=LARGEST, seconds=SECONDS)
        response = session.get(address, timeout=SECONDS, allow_redirects=False)
        response.raise_for_status()
        keys = response.json()
    if not (isinstance(keys, dict) and keys and all(isinstance(key, str) for key in keys.values())):
        raise ValueError(f"{address} has no keys")
    return keys

"""Counts failed logins per client, to tell clients with too many of them to wait.

The right credentials are always accepted; otherwise a stranger could lock out everyone behind the
same proxy. So this only slows down clients that respect it, and keeps guesses from filling the log.
The protection against guessing is the length of the password (`infra/facts/limits.py` requires 15
characters).
"""

from collections import OrderedDict
from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address, ip_network
from math import ceil

PATIENCE = 10
"""Failures in a row without a wait: a client may retry, or a page's many requests may share one
mistake."""

INTERVAL = 6.0
"""Seconds after which one failure is forgotten."""

LONGEST = 60.0
"""The longest wait in seconds; an hour would also affect other clients behind the same proxy."""

TELL_EVERY = 10.0
"""Seconds between log lines about refusals: a line for each one could add up to gigabytes a day."""

MAX_CLIENTS = 10_000
"""Clients that are remembered, in some 2 MB; beyond that the one whose last failure is oldest is
forgotten."""


class FailedLogins:
    """The generic cell rate algorithm: https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm

    It keeps one time for each client: when all its failures are forgotten, if one is forgotten
    every `INTERVAL` seconds. All times are in seconds of one monotonic clock.
    """

    def __init__(self) -> None:
        self._until: OrderedDict[str, float] = OrderedDict()
        self.untold = 0
        self._told_at = -TELL_EVERY

    def add(self, client: str, now: float) -> int:
        """Count one more failure. Returns the seconds to wait, 0 for a client with few failures."""
        until = max(self._until.pop(client, now), now) + INTERVAL
        # Leaves room for the next failure.
        full = now + (PATIENCE - 1) * INTERVAL
        self._until[client] = until = min(until, full + LONGEST)
        if len(self._until) > MAX_CLIENTS:
            self._until.popitem(last=False)
        if until <= now + PATIENCE * INTERVAL:
            return 0
        self.untold += 1
        return ceil(until - full)

    def wait(self, client: str, now: float) -> int:
        """Returns the seconds that a client has to wait before it may try again."""
        full = now + (PATIENCE - 1) * INTERVAL
        return max(0, ceil(self._until.get(client, now) - full))

    def to_tell(self, now: float) -> int:
        """Returns how many were told to wait since the last report, 0 if that was just now."""
        if now - self._told_at < TELL_EVERY:
            return 0
        told, self.untold, self._told_at = self.untold, 0, now
        return told


def address_of(peer: str, forwarded_for: Sequence[bytes], *, trusted_proxies: int) -> str:
    """Returns the client's address, or "unknown" if the proxies' header has no credible one.

    Only the end of X-Forwarded-For can be trusted: Google's front end appends the client, and each
    of our proxies appends an address after it. A load balancer is such a proxy:
    https://cloud.google.com/load-balancing/docs/https#x-forwarded-for_header
    """
    if not forwarded_for:
        return peer
    addresses = b",".join(forwarded_for).rsplit(b",", trusted_proxies + 1)
    # There are fewer if a client inside the network bypasses the proxies.
    client = addresses[max(-1 - trusted_proxies, -len(addresses))].strip().decode("latin-1")
    try:
        address = ip_address(client)
    except ValueError:
        return "unknown"
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    # A client on this computer doesn't use a proxy.
    return "unknown" if address.is_loopback else str(address)


def network_of(address: str) -> str:
    """Returns what is counted as one client: an IPv4 address, or a customer's /64 of IPv6."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return str(ip_network((address, 64), strict=False)) if parsed.version == 6 else address

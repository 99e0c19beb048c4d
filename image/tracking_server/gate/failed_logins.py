"""Who gives wrong credentials too often, so that their refusals become rare and cheap.

The right credentials always pass, or a stranger could lock out everybody behind the same proxy.
So this makes guessing quiet and slow for whoever heeds it; what makes it hopeless is the length
of the password (`infra/facts/limits.py` asks for 15 characters).
"""

from collections import OrderedDict
from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address, ip_network
from math import ceil

PATIENCE = 10
"""Failures in a row that are answered as if they were the first: a client that retries,
a page whose many requests share one mistake."""

INTERVAL = 6.0
"""Seconds after which one of them is forgotten."""

LONGEST = 60.0
"""Seconds that a client is told to wait at most; an hour would hit who comes by the same proxy."""

TELL_EVERY = 10.0
"""Seconds between two lines of the log about them: a line for each could be gigabytes a day."""

MAX_CLIENTS = 10_000
"""Clients that are remembered, in some 2 MB; beyond it the one is forgotten that was wrong longest
ago."""


class FailedLogins:
    """The generic cell rate algorithm: https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm

    For each client one moment: until when its failures last, if each lasts `INTERVAL` seconds.
    All moments are of one clock that never goes back, in seconds.
    """

    def __init__(self) -> None:
        self._until: OrderedDict[str, float] = OrderedDict()
        self.untold = 0
        self._told_at = -TELL_EVERY

    def add(self, client: str, now: float) -> int:
        """Count one more failure; the seconds to wait, 0 for a client that hasn't had many."""
        until = max(self._until.pop(client, now), now) + INTERVAL
        # The next one has to fit in.
        full = now + (PATIENCE - 1) * INTERVAL
        self._until[client] = until = min(until, full + LONGEST)
        if len(self._until) > MAX_CLIENTS:
            self._until.popitem(last=False)
        if until <= now + PATIENCE * INTERVAL:
            return 0
        self.untold += 1
        return ceil(until - full)

    def to_tell(self, now: float) -> int:
        """How many were made to wait since this was last asked; 0 where that was just now."""
        if now - self._told_at < TELL_EVERY:
            return 0
        told, self.untold, self._told_at = self.untold, 0, now
        return told


def address_of(peer: str, forwarded_for: Sequence[bytes], *, trusted_proxies: int) -> str:
    """The client's address; "unknown" where a proxy's header doesn't tell a believable one.

    Of X-Forwarded-For only the end is true: the client, put there by Google's front end, and after
    it the address of each proxy of ours. A load balancer is one:
    https://cloud.google.com/load-balancing/docs/https#x-forwarded-for_header
    """
    if not forwarded_for:
        return peer
    addresses = b",".join(forwarded_for).rsplit(b",", trusted_proxies + 1)
    # There are fewer if somebody comes past the proxies, out of the network inside.
    client = addresses[max(-1 - trusted_proxies, -len(addresses))].strip().decode("latin-1")
    try:
        address = ip_address(client)
    except ValueError:
        return "unknown"
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    # Nobody on this computer needs a proxy to say so.
    return "unknown" if address.is_loopback else str(address)


def network_of(address: str) -> str:
    """Those that are counted together: an address, or the /64 of IPv6, which one customer has."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return str(ip_network((address, 64), strict=False)) if parsed.version == 6 else address

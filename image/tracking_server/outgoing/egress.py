"""Restricts the addresses, programs and files that callers can make the server use.

A user can give addresses in many places: a gateway's base URL, a token endpoint, a webhook. All of
them lead to a connection of this process, so the policy is enforced there, after name resolution
and redirects. Python raises an audit event before each connection:
https://docs.python.org/3/library/audit_events.html
That covers requests, urllib, aiohttp (which connects a socket itself, even under uvloop) and every
other library that uses Python's sockets. C code that bypasses them raises no such event: gRPC's
connections, uvloop's `create_connection` and `subprocess_exec`, and `multiprocessing`.
MLflow uses none of them for a caller.
"""

import errno
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from tracking_server.boot.settings import Network

_NAT64 = IPv6Network("64:ff9b::/96")
"""IPv6 addresses that stand for an IPv4 address: https://www.rfc-editor.org/rfc/rfc6052"""

_GLOBAL_UNICAST = IPv6Network("2000::/3")
"""https://www.iana.org/assignments/ipv6-address-space"""

_NEVER = tuple(
    ip_network(text)
    for text in (
        "169.254.0.0/16",  # link-local, with the metadata server
        "fe80::/10",
        "fd20:ce::254/128",  # the metadata server: cloud.google.com/compute/docs/metadata
    )
)
"""Ranges that no setting opens."""

_PROGRAMS = frozenset(
    {
        "subprocess.Popen",
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.spawn",
        "os.fork",
        "pty.spawn",
    }
)
"""Audit events of starting another program."""

_SENDS = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
"""Audit events whose arguments include a destination address."""

_DEVICES = ("/proc/", "/sys/", "/dev/")
_HARMLESS_DEVICES = frozenset({"/dev/null", "/dev/urandom"})

_own: ContextVar[bool] = ContextVar("own_connection", default=False)

_calls_back: ContextVar[bool] = ContextVar("calls_back", default=False)


class EgressRefused(PermissionError):
    """A connection, program or file is refused.

    It is an `OSError`, so that HTTP libraries treat it as a failed connection.
    """


@contextmanager
def call_back() -> Iterator[None]:
    """Allow connections to this server itself within this context, for a guardrail's call."""
    token = _calls_back.set(True)
    try:
        yield
    finally:
        _calls_back.reset(token)


@contextmanager
def own_connection() -> Iterator[None]:
    """Allow all connections within this context, for Google's APIs and the database."""
    token = _own.set(True)
    try:
        yield
    finally:
        _own.reset(token)


def enforce(
    *,
    internal_networks: Iterable[Network],
    own_port: int,
    may_start_programs: bool,
    may_call_itself: bool = False,
) -> None:
    """Refuse forbidden connections, programs and files from now on, until the process ends.

    `internal_networks` are ranges that the team allows its users to reach. `own_port` is where this
    server listens, for calls back, or for all calls if this process `may_call_itself`.
    """
    networks = tuple(internal_networks)

    def check(event: str, args: tuple[Any, ...]) -> None:
        if event in _SENDS:
            _check_connection(args[1], networks, own_port, may_call_itself)
        elif event == "open":
            _check_file(args[0])
        elif event in _PROGRAMS and not may_start_programs:
            raise EgressRefused(errno.EPERM, f"This server starts no other program ({event}).")

    sys.addaudithook(check)


def is_reachable(address: IPv4Address | IPv6Address, networks: Iterable[Network] = ()) -> bool:
    """Whether a caller may make the server connect to this address."""
    address = _embedded(address)
    if any(address in network for network in _NEVER):
        return False
    # `is_global` is false for loopback, private, shared, reserved and documentation ranges:
    # https://docs.python.org/3/library/ipaddress.html#ipaddress.IPv4Address.is_global
    public = address.is_global and not address.is_multicast
    if address.version == 6:
        public = public and address in _GLOBAL_UNICAST
    return public or any(address in network for network in networks)


def _check_connection(
    target: Any, networks: tuple[Network, ...], own_port: int, may_call_itself: bool
) -> None:
    # A Unix socket's address is a path, which a caller's URL can't refer to.
    if _own.get() or not isinstance(target, tuple):
        return
    host, port = target[0], target[1]
    try:
        address = ip_address(str(host).partition("%")[0])
    except ValueError:
        # A name, which the socket would resolve itself, past this check.
        raise EgressRefused(errno.EACCES, f"{host!r} is not an address.") from None
    calls_back = may_call_itself or _calls_back.get()
    if calls_back and port == own_port and address.is_loopback:
        return
    if not is_reachable(address, networks):
        raise EgressRefused(
            errno.EACCES,
            f"This server doesn't connect to {address}: only addresses of the public internet, and "
            "those in the setting internalNetworks, are allowed (for example 10.8.0.0/24).",
        )


def _check_file(path: Any) -> None:
    """Refuse kernel files and devices: some hold the environment, and some never end."""
    if not isinstance(path, str | bytes) or _own.get():
        return  # a file descriptor, which is open already
    text = os.path.normpath(os.path.join("/", os.getcwd(), os.fsdecode(path)))
    text = f"/{text.lstrip('/')}"
    if text.startswith(_DEVICES) and text not in _HARMLESS_DEVICES:
        raise EgressRefused(errno.EACCES, f"This server doesn't open {text}.")


def _embedded(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Returns the IPv4 address that an IPv6 address stands for, or else the address itself."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return address.ipv4_mapped
        if address.sixtofour:
            return address.sixtofour
        if address.teredo:
            return address.teredo[1]
        if address in _NAT64 or int(address) >> 32 == 0:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address

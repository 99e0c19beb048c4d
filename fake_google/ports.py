"""Finds free ports on this computer."""

from __future__ import annotations

import socket


def free_port() -> int:
    """Returns a port on which nothing listens at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

"""The server ends in the middle of its work and is restarted."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.chaos.judgement import nothing_is_lost
from tests.chaos.rig import Rig, Server


@pytest.fixture
def server(rig: Rig) -> Iterator[Server]:
    with rig.server() as server:
        server.start()
        yield server.ready()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=lambda how: how.name)
def test_the_server_ends_and_is_restarted(rig: Rig, server: Server, how: signal.Signals) -> None:
    def fault() -> None:
        for _ in range(3):
            code = server.end(how)
            assert code == (0 if how == signal.SIGTERM else -how)
            server.start()
            server.ready()
            time.sleep(2)

    nothing_is_lost(f"the server ended by {how.name}", rig.under_load(server, fault, faults=3))


def test_the_log_has_no_reader(rig: Rig) -> None:
    """With a closed log pipe, requests that can't be logged still get a response."""
    with rig.server() as server:
        read, write = os.pipe()
        with os.fdopen(write, "wb") as output:
            server.start(output=output)
        with os.fdopen(read, "rb") as log:
            while b"serving on" not in log.readline():
                pass
        server.ready()
        nothing_is_lost("the log's reader gone", rig.under_load(server, lambda: None, seconds=10))
        assert server.end(signal.SIGTERM) == 0


def test_the_disk_of_the_log_is_full(rig: Rig) -> None:
    with rig.server() as server, open("/dev/full", "wb") as full:
        server.start(output=full)
        server.ready()
        nothing_is_lost("the log's disk full", rig.under_load(server, lambda: None, seconds=10))
        assert server.end(signal.SIGTERM) == 0

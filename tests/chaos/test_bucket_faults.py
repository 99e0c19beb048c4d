"""The bucket is unreachable or overloaded while a team logs artifacts."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from tests.chaos.judgement import nothing_is_lost
from tests.chaos.network import Network
from tests.chaos.rig import Rig

FAULTS: dict[str, Callable[[Network], AbstractContextManager[None]]] = {
    "the network to the bucket cut": Network.cut,
    "the bucket silent": Network.silent,
    "429 from the bucket": lambda network: network.answering(429),
    "503 from the bucket": lambda network: network.answering(503),
}
EACH = 3


@pytest.mark.parametrize("tried", FAULTS)
def test_the_bucket_is_unreachable_or_overloaded(rig: Rig, tried: str) -> None:
    with (
        rig.network("STORAGE_EMULATOR_HOST") as network,
        rig.server(STORAGE_EMULATOR_HOST=network.address) as server,
    ):
        server.start()
        server.ready()

        def fault() -> None:
            for _ in range(EACH):
                with FAULTS[tried](network):
                    time.sleep(3)
                time.sleep(1)

        outcome = rig.under_load(server, fault, seconds=26, faults=EACH)
        nothing_is_lost(tried, outcome)
        assert network.met > EACH


def test_the_metadata_server_is_slow_when_a_token_is_needed(rig: Rig) -> None:
    """The first artifacts need a token that the boot didn't; each request takes seconds."""
    with (
        rig.network("GCE_METADATA_HOST") as network,
        rig.server(GCE_METADATA_HOST=network.host, GCE_METADATA_IP=network.host) as server,
    ):
        server.start()
        server.ready()
        with network.slow(1):
            outcome = rig.under_load(server, lambda: time.sleep(5), seconds=15)
        nothing_is_lost("the metadata server slow for a token", outcome)
        assert network.met > 0

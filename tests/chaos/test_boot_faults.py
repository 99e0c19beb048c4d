"""Responses that a boot waits for arrive late, in pieces, or not at all."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from threading import Timer

import pytest

from tests.chaos.network import Network
from tests.chaos.report import Row, rows
from tests.chaos.rig import BOOT_SECONDS, Rig

FAULTS: dict[str, Callable[[Network], AbstractContextManager[None]]] = {
    "slow": lambda network: network.slow(2),
    "failing": lambda network: network.answering(503),
    "hanging": Network.silent,
    "cut off": Network.cut,
}
LASTS = 7
"""Seconds: longer than the server waits for one response."""


@pytest.mark.parametrize(
    ("variable", "fault"),
    [
        *(("SECRET_MANAGER_ENDPOINT", fault) for fault in FAULTS),
        # A metadata server that refuses connections doesn't exist for google-auth: the boot ends
        # with a line that says so, and Cloud Run starts another container.
        ("GCE_METADATA_HOST", "slow"),
        ("GCE_METADATA_HOST", "hanging"),
    ],
)
def test_a_boot_survives_a_slow_or_hanging_api(rig: Rig, variable: str, fault: str) -> None:
    with rig.network(variable) as network:
        changed = {variable: network.address}
        if variable == "GCE_METADATA_HOST":
            changed = {variable: network.host, "GCE_METADATA_IP": network.host}
        with rig.server(**changed) as server, ExitStack() as faulty:
            faulty.enter_context(FAULTS[fault](network))
            mending = Timer(LASTS, faulty.close)
            mending.start()
            started = time.monotonic()
            try:
                server.start()
                server.ready()
            finally:
                mending.cancel()
                mending.join()
            took = time.monotonic() - started
        assert network.met > 0
    what = "Secret Manager" if variable.startswith("SECRET") else "the metadata server"
    rows.append(Row(tried=f"{what} {fault} at boot", answers=f"booted after {took:.0f} s"))


def test_a_boot_without_secrets_ends_with_one_line(rig: Rig) -> None:
    with (
        rig.network("SECRET_MANAGER_ENDPOINT") as network,
        rig.server(SECRET_MANAGER_ENDPOINT=network.address) as server,
        network.answering(503),
    ):
        started = time.monotonic()
        server.start()
        assert server.process is not None
        assert server.process.wait(2 * BOOT_SECONDS) == 1
        took = time.monotonic() - started
        said = [json.loads(line) for line in server.log.read_text().splitlines()]
    [critical] = [line["message"] for line in said if line["severity"] == "CRITICAL"]
    assert "could not be read in time" in critical
    assert "\n" not in critical
    rows.append(Row(tried="Secret Manager unreachable", answers=f"one line after {took:.0f} s"))

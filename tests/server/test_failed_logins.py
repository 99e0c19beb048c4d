"""Failed logins are counted in bounded memory, however many clients there are."""

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracking_server.gate.failed_logins import (
    INTERVAL,
    LONGEST,
    MAX_CLIENTS,
    PATIENCE,
    FailedLogins,
    address_of,
    network_of,
)

from tests.server.conftest import StartServer
from tests.server.process import USER

READ = "/api/2.0/mlflow/experiments/get?experiment_id=0"


def test_memory_is_bounded_and_the_latest_clients_are_kept() -> None:
    failed = FailedLogins()
    for number in range(3 * MAX_CLIENTS):
        failed.add(f"client {number}", 0.0)
    assert len(failed._until) == MAX_CLIENTS
    latest = f"client {3 * MAX_CLIENTS - 1}"
    waits = [failed.add(latest, 0.0) for _ in range(PATIENCE)]
    assert waits == [0] * (PATIENCE - 1) + [2 * INTERVAL]


@given(st.lists(st.floats(0, 30), max_size=100))
def test_no_wait_is_longer_than_the_maximum(
    pauses: list[float],
) -> None:
    failed, now = FailedLogins(), 0.0
    for pause in pauses:
        now += pause
        assert 0 <= failed.add("client", now) <= LONGEST
    now += LONGEST
    assert failed.add("client", now) == 0


@given(st.lists(st.floats(INTERVAL, 100), max_size=100))
def test_rare_failures_never_cause_a_wait(pauses: list[float]) -> None:
    failed, now = FailedLogins(), 0.0
    for pause in pauses:
        now += pause
        assert failed.add("client", now) == 0


@given(st.binary(max_size=100), st.integers(0, 3))
def test_any_header_gives_a_client(header: bytes, proxies: int) -> None:
    client = network_of(address_of("peer", [header], trusted_proxies=proxies))
    assert 0 < len(client) <= len(header) + 64


def test_the_server_counts_as_its_environment_says(
    fork: StartServer, environment: dict[str, str]
) -> None:
    server = fork(environment | {"TRUSTED_PROXIES": "1"}).ready()
    with httpx.Client(base_url=server.url, auth=(USER, "wrong")) as wrong:

        def answers(client: str, times: int) -> set[int]:
            headers = {"X-Forwarded-For": f"{client},192.0.2.80"}
            return {wrong.get(READ, headers=headers).status_code for _ in range(times)}

        assert answers("203.0.113.7", PATIENCE) == {401}
        assert answers("203.0.113.8", 1) == {401}
        assert answers("203.0.113.7", 1) == {429}


@pytest.mark.parametrize(
    ("proxies", "forwarded_for", "client"),
    [
        (0, [b"203.0.113.7"], "203.0.113.7"),
        (0, [b"198.51.100.1, 203.0.113.7"], "203.0.113.7"),
        (0, [b"198.51.100.1", b"203.0.113.7"], "203.0.113.7"),
        (1, [b"203.0.113.7,192.0.2.80"], "203.0.113.7"),
        (1, [b"198.51.100.1, 203.0.113.7, 192.0.2.80"], "203.0.113.7"),
        (1, [b"198.51.100.1", b"203.0.113.7,192.0.2.80"], "203.0.113.7"),
        (1, [b"203.0.113.7", b"192.0.2.80"], "203.0.113.7"),
        # A request that bypasses the load balancer.
        (1, [b"203.0.113.7"], "203.0.113.7"),
        (1, [b"nonsense, 192.0.2.80"], "unknown"),
        (1, [], "peer"),
    ],
)
def test_the_client_is_the_address_before_the_trusted_proxies(
    proxies: int, forwarded_for: list[bytes], client: str
) -> None:
    assert network_of(address_of("peer", forwarded_for, trusted_proxies=proxies)) == client

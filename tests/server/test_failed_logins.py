"""Failures are counted in bounded memory, whoever sends how many."""

from hypothesis import given
from hypothesis import strategies as st
from tracking_server.failed_logins import (
    INTERVAL,
    LONGEST,
    MAX_CLIENTS,
    PATIENCE,
    FailedLogins,
    client_of,
)


def test_memory_is_bounded_and_the_latest_are_known() -> None:
    failed = FailedLogins()
    for number in range(3 * MAX_CLIENTS):
        failed.add(f"client {number}", 0.0)
    assert len(failed._until) == MAX_CLIENTS
    latest = f"client {3 * MAX_CLIENTS - 1}"
    waits = [failed.add(latest, 0.0) for _ in range(PATIENCE)]
    assert waits == [0] * (PATIENCE - 1) + [2 * INTERVAL]


@given(st.lists(st.floats(0, 30), max_size=100))
def test_nobody_waits_longer_than_the_longest_time(
    pauses: list[float],
) -> None:
    failed, now = FailedLogins(), 0.0
    for pause in pauses:
        now += pause
        assert 0 <= failed.add("client", now) <= LONGEST
    now += LONGEST
    assert failed.add("client", now) == 0


@given(st.lists(st.floats(INTERVAL, 100), max_size=100))
def test_who_fails_rarely_never_waits(pauses: list[float]) -> None:
    failed, now = FailedLogins(), 0.0
    for pause in pauses:
        now += pause
        assert failed.add("client", now) == 0


@given(st.binary(max_size=100))
def test_any_header_names_somebody(header: bytes) -> None:
    assert 0 < len(client_of("peer", [header])) <= len(header) + 64

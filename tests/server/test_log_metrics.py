"""The metrics of the log, applied to what a real server has logged."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text
from tracking_server.database import address, engines
from tracking_server.gate.failed_logins import PATIENCE

from infra.google.log_metrics import (
    FAILED_LOGINS,
    LATENCY,
    LOG_METRICS,
    POOL_IN_USE,
    REFUSED_LOGINS,
    SERVER_ERRORS,
    LogMetric,
)
from tests.server.conftest import StartServer
from tests.server.log_filter import Entry, entry_of, matches, number

SEARCH = "/api/2.0/mlflow/experiments/search"
FILE = "/api/2.0/mlflow-artifacts/artifacts/0/r/artifacts/f"
READERS = 16
POOL = 8


def counted(metric: LogMetric, entries: list[Entry]) -> list[Entry]:
    return [entry for entry in entries if matches(metric.filter_for("mlflow"), entry)]


def values(metric: LogMetric, entries: list[Entry]) -> list[float]:
    assert metric.value
    return [number(entry, metric.value) for entry in counted(metric, entries)]


def urls(entries: list[Entry]) -> list[str]:
    return [f"{e['httpRequest']['requestUrl']} {e['httpRequest']['status']}" for e in entries]


def test_metrics_of_a_real_server(
    fork: StartServer, environment: dict[str, str], database_url: str, cloudsql_root: Path
) -> None:
    server = fork(environment | {"MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": str(POOL)}).ready()
    with server.client() as client:
        with ThreadPoolExecutor(READERS) as threads:
            many = threads.map(
                lambda _: client.post(SEARCH, json={"max_results": 10}), range(5 * READERS)
            )
            assert {answer.status_code for answer in many} == {200}
        assert client.put(FILE, content=b"x").status_code == 200
        assert client.get(SEARCH, auth=None).status_code == 401  # type: ignore[arg-type]
        wrong = [client.get(SEARCH, auth=("mlflow", f"guess-{n}")) for n in range(PATIENCE + 5)]
        assert [answer.status_code for answer in wrong] == [401] * PATIENCE + [429] * 5
        database = address.parse(database_url).at_root(str(cloudsql_root))
        engines.connect_with(database, pool_size=1)
        with engines.single_connection_engine().begin() as connection:
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
            connection.execute(text(f"ALTER DATABASE {database.database} CONNECTION LIMIT 0"))
        failed = client.post(SEARCH, json={"max_results": 10}).status_code
        assert failed >= 500
    # A line is written once its response has been sent.
    until = time.monotonic() + 10
    while f"{SEARCH} {failed}" not in server.log() and time.monotonic() < until:
        time.sleep(0.05)
    assert server.stop() == 0
    lines = server.entries()
    entries = [entry_of(line, service="mlflow") for line in lines]

    assert len(counted(FAILED_LOGINS, entries)) == PATIENCE
    # The first failure has a line at once; the others share one ten seconds later, if at all.
    assert values(REFUSED_LOGINS, entries)[0] == 1
    assert urls(counted(SERVER_ERRORS, entries)) == [f"{SEARCH} {failed}"]
    timed = counted(LATENCY, entries)
    assert urls(timed).count(f"{SEARCH} 200") == 5 * READERS
    assert f"{FILE} 200" in urls([entry for entry in entries if "httpRequest" in entry])
    assert f"{FILE} 200" not in urls(timed)
    assert all(0 < seconds < 60 for seconds in values(LATENCY, entries))
    used = values(POOL_IN_USE, entries)
    assert len(used) == sum("httpRequest" in line for line in lines)
    assert 1 < max(used) <= POOL
    # More requests at a time than the pool has connections.
    assert max(entry["jsonPayload"]["pool"]["waiting"] for entry in timed) > 0
    # A service with another name has separate metrics.
    others = [entry_of(line, service="mlflow-2") for line in lines]
    assert [counted(metric, others) for metric in LOG_METRICS] == [[]] * len(LOG_METRICS)


@pytest.mark.parametrize("metric", LOG_METRICS, ids=lambda metric: metric.name)
def test_cloud_runs_own_request_logs_are_not_counted_too(metric: LogMetric) -> None:
    for status in (200, 401, 429, 503):
        theirs = {
            "resource": {"type": "cloud_run_revision", "labels": {"service_name": "mlflow"}},
            "httpRequest": {
                "requestUrl": "https://x.a.run.app/",
                "status": status,
                "latency": "1s",
            },
        }
        assert not matches(metric.filter_for("mlflow"), theirs)


@pytest.mark.parametrize(
    "unknown", ["a:b", 'a="b" OR a="c"', "NOT a=1", "a=b", "(a=1)", 'a=~"b"', ""]
)
def test_an_unknown_filter_is_refused(unknown: str) -> None:
    with pytest.raises(ValueError, match="unknown comparison"):
        matches(unknown, {"a": "b"})

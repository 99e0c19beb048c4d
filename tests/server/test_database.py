"""MLflow's engines share one pool, which replaces dead connections before they are used."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, column, create_engine, func, select, text
from sqlalchemy.exc import DBAPIError
from tracking_server.database import address, engines

from fake_google.sql.postgres import Postgres
from tests.server.conftest import CONNECTION_NAME, StartServer
from tests.server.test_driver import waits

POOL_SIZE = 6


@pytest.fixture
def engine(
    database_url: str, cloudsql_root: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Engine]:
    """Returns an engine, created as MLflow does."""
    monkeypatch.setattr(engines, "_shared_pool", None)
    engines.connect_with(
        address.parse(database_url).at_root(str(cloudsql_root)), pool_size=POOL_SIZE
    )
    yield create_engine(engines.PLUGIN_URL, pool_pre_ping=True, pool_size=3, max_overflow=9)
    engines.close_pool()


def sessions(engine: Engine) -> set[int]:
    """Returns the sessions of as many parallel threads as the pool has connections."""
    together = threading.Barrier(2)
    found: set[int] = set()

    def ask() -> None:
        with engine.begin() as connection:
            number = connection.execute(text("SELECT pg_backend_pid() WHERE 1 = :n"), {"n": 1})
            found.add(number.scalar_one())
            together.wait(30)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(threads)
    return found


def restart(postgres: Postgres, cloudsql_root: Path) -> None:
    postgres.stop()
    postgres.start()
    link = cloudsql_root / CONNECTION_NAME / ".s.PGSQL.5432"
    link.unlink()
    link.symlink_to(postgres.socket())


def test_a_transaction_costs_two_round_trips(engine: Engine) -> None:
    with engine.connect() as connection:
        driver_connection = connection.connection.driver_connection

    def transaction(_: object) -> None:
        with engine.begin() as connection:
            assert connection.connection.driver_connection is driver_connection
            connection.execute(text("SELECT :n"), {"n": 1})

    assert waits(driver_connection, transaction) == 2


def test_sessions_that_ended_while_idle_are_replaced(engine: Engine, postgres: Postgres) -> None:
    before = sessions(engine)
    with postgres.connection() as admin:
        for number in before:
            admin.run("SELECT pg_terminate_backend(:number, 5000)", number=number)
    assert not before & sessions(engine)


def test_a_restart_of_the_database_is_not_noticed(
    engine: Engine, postgres: Postgres, cloudsql_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = sessions(engine)
    restart(postgres, cloudsql_root)
    assert not before & sessions(engine)
    assert not caplog.records


def test_a_session_that_ends_in_a_transaction_fails_only_that_transaction(
    engine: Engine, postgres: Postgres
) -> None:
    before = sessions(engine)
    with engine.connect() as connection:
        found = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        with postgres.connection() as admin:
            admin.run("SELECT pg_terminate_backend(:number, 5000)", number=found)
        with pytest.raises(DBAPIError, match="network error"):
            connection.execute(text("SELECT :n"), {"n": 1})
    assert found in before
    assert found not in sessions(engine)


def test_a_repeated_expression_uses_the_same_parameters(engine: Engine) -> None:
    """Otherwise Postgres doesn't see that the selected and the grouped expressions are equal."""
    bucket = func.floor(column("n") / 5)
    statement = (
        select(bucket, func.count())
        .select_from(func.generate_series(1, 9).table_valued("n").render_derived())
        .group_by(bucket)
        .order_by(bucket)
    )
    with engine.connect() as connection:
        assert [tuple(row) for row in connection.execute(statement)] == [(0, 4), (1, 5)]


def test_the_server_outlives_its_database(
    fork: StartServer, environment: dict[str, str], postgres: Postgres, cloudsql_root: Path
) -> None:
    server = fork(environment).ready()
    with server.client() as client:

        def works() -> bool:
            found = client.post("/api/2.0/mlflow/runs/search", json={"experiment_ids": ["0"]})
            return found.status_code == 200

        assert works()
        restart(postgres, cloudsql_root)
        assert works()
    assert server.stop() == 0
    assert "ERROR" not in {entry["severity"] for entry in server.entries()}, server.log()

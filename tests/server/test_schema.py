"""The schema is created or upgraded once, even if several boot at once; newer ones are refused."""

import logging
import re
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pg8000
import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool
from tracking_server.boot import schema
from tracking_server.database import address, engines
from tracking_server.errors import BootError
from tracking_server.mlflow import internals

from fake_google.sql.postgres import Postgres
from tests.schema import WHOLE_SCHEMA
from tests.server.conftest import StartServer, made_empty_database

BOOTS = 3


@pytest.fixture
def database_url(postgres: Postgres, tmp_path: Path) -> str:
    return made_empty_database(postgres, f"empty_{tmp_path.name}")


@pytest.fixture
def engine(database_url: str, cloudsql_root: Path) -> Iterator[Engine]:
    engines.connect_with(address.parse(database_url).at_root(str(cloudsql_root)), pool_size=1)
    engine = engines.single_connection_engine()
    yield engine
    engine.dispose()


def older_schema(engine: Engine) -> str:
    """Create the tables of an older revision. Returns that revision."""
    from alembic import command
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config
    from mlflow.store.tracking.dbmodels.initial_models import Base as InitialBase

    config = _get_alembic_config("unused")
    script = ScriptDirectory.from_config(config)
    revision = list(script.walk_revisions())[5].revision
    InitialBase.metadata.create_all(engine)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    assert revision_of(engine) == revision
    return str(revision)


def revision_of(engine: Engine) -> str | None:
    with engine.connect() as connection:
        return internals.schema_revision(connection)


def everything(engine: Engine) -> set[tuple[str, ...]]:
    with engine.connect() as connection:
        return {tuple(row) for row in connection.execute(text(WHOLE_SCHEMA))}


def test_several_boots_at_once(
    fork: StartServer, environment: dict[str, str], engine: Engine
) -> None:
    """On an empty database; tests/chaos/test_boots.py uses databases with data."""
    servers = [fork(environment) for _ in range(BOOTS)]
    for server in servers:
        server.ready()
    said = [entry["message"] for server in servers for entry in server.entries()]
    assert len([line for line in said if line.startswith("schema: from revision none")]) == 1
    assert revision_of(engine) == internals.latest_schema_revision()
    for number, server in enumerate(servers):
        with server.client() as client:
            made = client.post("/api/2.0/mlflow/experiments/create", json={"name": f"of {number}"})
            assert made.status_code == 200, made.text
    with servers[0].client() as client:
        listed = client.get("/api/2.0/mlflow/experiments/search", params={"max_results": 100})
        names = {experiment["name"] for experiment in listed.json()["experiments"]}
    assert names == {"Default"} | {f"of {number}" for number in range(BOOTS)}
    assert [server.stop() for server in servers] == [0] * BOOTS


def test_a_newer_schema_is_refused(engine: Engine) -> None:
    schema.ensure(engine, deadline=5)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'fromthefuture'"))
    with pytest.raises(BootError, match="fromthefuture.*a newer server has upgraded it"):
        schema.ensure(engine, deadline=5)


def test_a_job_requires_the_servers_schema_and_changes_nothing(engine: Engine) -> None:
    with pytest.raises(BootError, match="at revision none, .* the server upgrades it"):
        schema.require(engine, deadline=5)
    assert everything(engine) == set()
    schema.ensure(engine, deadline=5)
    schema.require(engine, deadline=5)


@pytest.mark.parametrize(
    ("state", "fails_at"),
    [
        ("empty", "CREATE TABLE experiments"),
        ("empty", "CREATE TABLE alembic_version"),
        ("empty", "REASSIGN OWNED"),
        ("older", "UPDATE alembic_version"),
        ("older", "REASSIGN OWNED"),
    ],
)
def test_a_failed_migration_changes_nothing_and_can_be_repeated(
    engine: Engine, state: str, fails_at: str
) -> None:
    if state == "older":
        older_schema(engine)
    before, failed = everything(engine), 0

    def fail(*arguments: Any) -> tuple[str, Any]:
        nonlocal failed
        statement, parameters = arguments[2:4]
        if statement.strip().startswith(fails_at):
            failed += 1
            return "SELECT 1 / 0", ()
        return statement, parameters

    event.listen(engine, "before_cursor_execute", fail, retval=True)
    with pytest.raises(BootError, match="and is as it was: division by zero, SQLSTATE 22012"):
        schema.ensure(engine, deadline=5)
    assert failed == 1
    assert everything(engine) == before
    event.remove(engine, "before_cursor_execute", fail)
    schema.ensure(engine, deadline=5)
    assert revision_of(engine) == internals.latest_schema_revision()


def test_the_log_names_the_moment_to_restore_before_an_upgrade(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    schema.ensure(engine, deadline=5)
    assert "restore" not in caplog.text
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public AUTHORIZATION cloudsqlsuperuser"))
    older_schema(engine)
    caplog.clear()
    before = datetime.now(UTC)
    schema.ensure(engine, deadline=5)
    [told] = re.findall(r"the way back is a restore to (\S+Z) ", caplog.text)
    # Truncated to milliseconds.
    assert (
        timedelta(milliseconds=-1) <= datetime.fromisoformat(told) - before < timedelta(seconds=5)
    )


def test_a_migration_waits_for_locked_tables_without_blocking_others(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    older_schema(engine)
    monkeypatch.setattr(schema, "_TABLE_TIMEOUT", "100ms")
    upgraded = threading.Thread(target=schema.ensure, args=(engine,), kwargs={"deadline": 5})
    with engine.connect() as user, engine.connect() as other:
        user.execute(text("LOCK TABLE alembic_version IN SHARE MODE"))
        upgraded.start()
        while "trying again" not in caplog.text:
            assert upgraded.is_alive()
            sleep(0.05)
        # The migration has released its locks.
        other.execute(text("SET lock_timeout = '300ms'"))
        assert other.execute(text("SELECT count(*) FROM experiments")).scalar_one() == 0
    upgraded.join()
    assert revision_of(engine) == internals.latest_schema_revision()


def test_tables_that_stay_locked_are_reported(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    older_schema(engine)
    before = everything(engine)
    monkeypatch.setattr(schema, "_TABLE_TIMEOUT", "100ms")
    with engine.connect() as user:
        user.execute(text("LOCK TABLE alembic_version IN SHARE MODE"))
        with pytest.raises(BootError, match="as it was: .* lock timeout.*pg_stat_activity"):
            schema.ensure(engine, deadline=5, lock_deadline=0.5)
    assert everything(engine) == before


@pytest.mark.parametrize("state", ["empty", "older", "upgraded by hand"])
def test_a_second_user_has_the_same_rights_as_the_first(
    engine: Engine, postgres: Postgres, state: str
) -> None:
    if state == "older":
        older_schema(engine)
    if state == "upgraded by hand":
        with engine.begin() as connection:
            internals.create_or_upgrade_schema(connection)
    schema.ensure(engine, deadline=5)
    postgres.create_user("second", "second")
    url = make_url(str(engine.url)).set(username="second")
    second = create_engine(
        url, poolclass=NullPool, connect_args={"password": "second", "ssl_context": False}
    )
    assert revision_of(second) == internals.latest_schema_revision()
    with second.begin() as connection:
        connection.execute(
            text("INSERT INTO experiments (name, workspace) VALUES ('of the second', 'default')")
        )
        connection.execute(text("ALTER TABLE runs ADD COLUMN more integer"))
        connection.execute(text("CREATE TABLE further (id serial)"))


def test_waiting_for_a_held_lock_ends(engine: Engine) -> None:
    with engine.connect() as holder:
        schema._lock(holder, monotonic() + 1)
        with pytest.raises(BootError, match="another instance has been upgrading"):
            schema.ensure(engine, deadline=5, lock_deadline=0.5)
    schema.ensure(engine, deadline=5, lock_deadline=0.5)


def test_a_boot_waits_for_a_database_that_comes_later(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = schema._ask
    calls = 0

    def later(engine: Engine, more: None) -> tuple[str | None, str | None, bool]:
        nonlocal calls
        calls += 1
        return ask(unreachable() if calls < 4 else engine, more)

    monkeypatch.setattr(schema, "_ask", later)
    schema.ensure(engine, deadline=30)
    assert calls >= 4


def test_waiting_for_a_missing_database_ends() -> None:
    with pytest.raises(BootError, match="can't be reached within 0 s.*roles/cloudsql.client"):
        schema.ensure(unreachable(), deadline=0.2)


def test_waiting_for_a_silent_database_ends(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / ".s"))
        silent.listen()
        silent_address = f"postgresql+pg8000://u:p@/db?unix_sock={tmp_path}/.s"
        engines.connect_with(address.parse(silent_address), pool_size=1)
        with pytest.raises(BootError, match="can't be reached within 1 s .no response"):
            schema.ensure(engines.single_connection_engine(), deadline=1)


def test_missing_rights_of_the_user_are_reported(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("SET ROLE cloudsqlsuperuser"))
        connection.execute(text("ALTER SCHEMA public OWNER TO cloudsqlsuperuser"))
        connection.execute(text("CREATE ROLE lesser LOGIN PASSWORD 'lesser'"))
    url = make_url(str(engine.url)).set(username="lesser")
    lesser = create_engine(
        url, poolclass=NullPool, connect_args={"password": "lesser", "ssl_context": False}
    )
    with pytest.raises(BootError, match="could not be upgraded.*CREATE on the schema public"):
        schema.ensure(lesser, deadline=5)


def unreachable() -> Engine:
    return create_engine(
        "postgresql+pg8000://u:p@/db?unix_sock=/nowhere/.s.PGSQL.5432", poolclass=NullPool
    )


def test_the_servers_message_is_found_behind_the_drivers_error() -> None:
    refused = pg8000.DatabaseError({"S": "FATAL", "C": "28P01", "M": "password authentication"})
    goodbye = pg8000.InterfaceError("network error")
    goodbye.__context__ = refused
    error = DBAPIError("statement", {}, goodbye)
    assert "refuses the user's password" in schema._reason(error)
    assert schema._reason(DBAPIError("statement", {}, OSError("gone\nfar"))) == "gone"

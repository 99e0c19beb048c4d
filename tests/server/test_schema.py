"""The schema is made or upgraded once, however many boot at once; a newer one is refused."""

import socket
from pathlib import Path

import pg8000
import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool
from tracking_server import database, mlflow_internals, schema
from tracking_server.errors import BootError

from tests.server.conftest import StartServer

BOOTS = 5


@pytest.fixture
def engine(database_url: str, cloudsql_root: Path) -> Engine:
    database.connect_with(make_url(database_url), pool_size=1, cloudsql_root=str(cloudsql_root))
    return database.single_connection_engine()


def older_schema(engine: Engine) -> str:
    """The tables as MLflow made them some revisions ago. Answers that revision."""
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
    assert mlflow_internals.schema_revision(engine) == revision
    return str(revision)


@pytest.mark.parametrize("state", ["empty", "older"])
def test_five_boots_at_once(
    start: StartServer, environment: dict[str, str], engine: Engine, state: str
) -> None:
    found = older_schema(engine) if state == "older" else "none"
    servers = [start(environment) for _ in range(BOOTS)]
    for server in servers:
        server.ready()
    said = [entry["message"] for server in servers for entry in server.entries()]
    assert len([line for line in said if line.startswith(f"schema: from revision {found}")]) == 1
    assert mlflow_internals.schema_revision(engine) == mlflow_internals.latest_schema_revision()
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


def test_a_held_lock_is_waited_for_and_given_up(engine: Engine) -> None:
    with engine.connect() as holder:
        schema._lock(holder, 1)
        with pytest.raises(BootError, match="another instance has been upgrading"):
            schema.ensure(engine, deadline=5, lock_deadline=0.5)
    schema.ensure(engine, deadline=5, lock_deadline=0.5)


def test_a_database_that_is_not_there_yet_is_waited_for(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = mlflow_internals.schema_revision
    calls = 0

    def later(engine: Engine) -> str | None:
        nonlocal calls
        calls += 1
        return revision(unreachable() if calls < 4 else engine)

    monkeypatch.setattr(mlflow_internals, "schema_revision", later)
    schema.ensure(engine, deadline=30)
    assert calls >= 4


def test_a_database_that_never_comes_is_given_up() -> None:
    with pytest.raises(BootError, match="can't be reached within 0 s.*roles/cloudsql.client"):
        schema.ensure(unreachable(), deadline=0.2)


def test_a_database_that_accepts_and_never_answers_is_given_up(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / ".s"))
        silent.listen()
        url = make_url(f"postgresql+pg8000://u:p@/db?unix_sock={tmp_path}/.s")
        database.connect_with(url, pool_size=1, cloudsql_root="/cloudsql")
        with pytest.raises(BootError, match="can't be reached within 1 s .it is silent"):
            schema.ensure(database.single_connection_engine(), deadline=1)


def test_a_user_without_rights_is_told(engine: Engine) -> None:
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


def test_what_the_server_said_is_found_behind_what_the_driver_made_of_it() -> None:
    refused = pg8000.DatabaseError({"S": "FATAL", "C": "28P01", "M": "password authentication"})
    goodbye = pg8000.InterfaceError("network error")
    goodbye.__context__ = refused
    error = DBAPIError("statement", {}, goodbye)
    assert "refuses the user's password" in schema._reason(error)
    assert schema._reason(DBAPIError("statement", {}, OSError("gone\nfar"))) == "gone"

"""Cloud SQL: the version of PostgreSQL, the ways to connect, the rights of Cloud SQL's roles."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pg8000.native
import pytest

from fake_google.sql.postgres import Installation, InstanceSettings, Postgres, choose
from fake_google.state import LocalError, State
from infra.facts.connection_name import ConnectionName

DECLARED = InstanceSettings(
    connection_name=ConnectionName.parse("local-project:us-central1:mlflow-1"),
    major=17,
    tier="db-f1-micro",
    ssl_mode="ENCRYPTED_ONLY",
    authorized_networks=("127.0.0.1/32",),
)
PASSWORD = "it's a \\ password"


def _installed(*majors: int) -> list[Installation]:
    return [Installation(Path(f"/pg/{major}"), major, f"{major}.1") for major in majors]


@pytest.mark.parametrize(
    ("majors", "wanted", "data", "chosen"),
    [
        ((15, 17), 17, None, 17),
        ((15, 16), 18, None, 16),
        ((16, 18), 17, None, 18),
        ((15, 17), 17, 15, 15),
        ((17, 15), 18, 17, 17),
    ],
)
def test_the_nearest_version_that_reads_the_data_is_taken(
    majors: tuple[int, ...], wanted: int, data: int | None, chosen: int
) -> None:
    assert choose(_installed(*majors), wanted=wanted, data=data).major == chosen


@pytest.mark.parametrize(
    ("majors", "data", "words"), [((), None, "apt install"), ((17,), 15, "PostgreSQL 15")]
)
def test_a_missing_server_is_explained(
    majors: tuple[int, ...], data: int | None, words: str
) -> None:
    with pytest.raises(LocalError, match=words):
        choose(_installed(*majors), wanted=17, data=data)


@pytest.fixture(scope="module")
def start(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[InstanceSettings], AbstractContextManager[Postgres]]]:
    """Start the same data directory with changed settings, one after the other."""
    state = State(tmp_path_factory.mktemp("postgres") / ".local")
    state.create()

    @contextmanager
    def running(settings: InstanceSettings) -> Iterator[Postgres]:
        database = Postgres(state=state, settings=settings, say=lambda line: None)
        database.start()
        database.create_database("mlflow")
        database.create_user("mlflow", PASSWORD)
        try:
            yield database
        finally:
            database.stop()

    yield running
    state.clean()


def _connect(database: Postgres, *, by: str, password: str = PASSWORD) -> Any:
    encrypted = ssl.create_default_context()
    encrypted.check_hostname, encrypted.verify_mode = False, ssl.CERT_NONE
    where: dict[str, Any] = {
        "socket": {"unix_sock": str(database.socket())},
        "plain": {"host": "127.0.0.1", "port": database.port, "ssl_context": False},
        "tls": {"host": "127.0.0.1", "port": database.port, "ssl_context": encrypted},
    }[by]
    return pg8000.native.Connection("mlflow", password=password, database="mlflow", **where)


@pytest.mark.parametrize(
    ("changes", "open_ways"),
    [
        ({}, {"socket", "tls"}),
        ({"ssl_mode": "ALLOW_UNENCRYPTED_AND_ENCRYPTED"}, {"socket", "tls", "plain"}),
        ({"authorized_networks": ()}, {"socket"}),
        ({"connector_required": True}, {"socket"}),
        ({"ssl_mode": "TRUSTED_CLIENT_CERTIFICATE_REQUIRED"}, {"socket"}),
    ],
    ids=["encrypted only", "anything", "no authorized network", "connectors only", "client cert"],
)
def test_only_the_declared_connections_are_accepted(
    start: Callable[[InstanceSettings], AbstractContextManager[Postgres]],
    changes: dict[str, Any],
    open_ways: set[str],
) -> None:
    with start(replace(DECLARED, **changes)) as database:
        for way in ("socket", "tls", "plain"):
            if way in open_ways:
                with _connect(database, by=way) as connection:
                    assert connection.run("SELECT 1") == [[1]]
                with pytest.raises(pg8000.exceptions.Error):
                    _connect(database, by=way, password="wrong")
            else:
                with pytest.raises(pg8000.exceptions.Error):
                    _connect(database, by=way)


def test_the_user_has_the_attributes_of_a_cloud_sql_user(
    start: Callable[[InstanceSettings], AbstractContextManager[Postgres]],
) -> None:
    with start(DECLARED) as database, _connect(database, by="socket") as connection:
        connection.run("CREATE TABLE mine (id int)")
        connection.run("DROP TABLE mine")
        row = connection.run(
            "SELECT rolsuper, rolcreatedb, rolcreaterole,"
            " pg_has_role('cloudsqlsuperuser', 'member') FROM pg_roles WHERE rolname = 'mlflow'"
        )
        assert row == [[False, True, True, True]]
        shown = [
            connection.run(f"SHOW {name}")[0][0]
            for name in ("max_connections", "superuser_reserved_connections", "fsync")
        ]
        assert shown == ["25", "3", "on"]
        with pytest.raises(pg8000.exceptions.Error, match="42501"):
            connection.run("COPY (SELECT 1) TO PROGRAM 'true'")


def test_a_role_that_owns_objects_cannot_be_dropped(
    start: Callable[[InstanceSettings], AbstractContextManager[Postgres]],
) -> None:
    with start(DECLARED) as database:
        with _connect(database, by="socket") as connection:
            connection.run("CREATE TABLE owned (id int)")
            with pytest.raises(LocalError, match="being accessed by other users"):
                database.drop_database("mlflow")
        with pytest.raises(LocalError, match="cannot be dropped because some objects depend on it"):
            database.drop_user("mlflow")
        database.drop_database("mlflow")
        database.drop_user("mlflow")


def test_a_deleted_instance_leaves_nothing(tmp_path: Path) -> None:
    state = State(tmp_path / ".local")
    state.create()
    database = Postgres(state=state, settings=DECLARED, say=lambda line: None)
    database.start()
    port = database.port
    database.delete()
    with pytest.raises(pg8000.exceptions.InterfaceError):
        pg8000.native.Connection("mlflow", host="127.0.0.1", port=port)
    outside = [Path(place) for place in state.load("outside.json")]
    places = [state.path("postgres"), *outside]
    assert not [data for place in places for data in place.rglob("PG_VERSION")]
    state.clean()

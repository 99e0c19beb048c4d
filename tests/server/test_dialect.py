"""Postgres compares and refuses MLflow's values as with the driver that MLflow expects."""

from typing import Any

import pg8000
import pytest
from sqlalchemy import (
    Column,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    select,
    text,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.pool import NullPool
from tracking_server.database import dialect, driver

from fake_google.sql.postgres import Postgres
from tests.server.conftest import DATABASE_PASSWORD, DATABASE_USER

VERSIONS = Table("versions", MetaData(), Column("number", Integer), Column("name", String(9)))


@pytest.mark.parametrize(
    ("name", "accepted"), [("postgresql+pg8000", False), (dialect.DRIVER, True)]
)
def test_an_integer_is_compared_with_a_string(
    postgres: Postgres, database_url: str, name: str, accepted: bool
) -> None:
    def connect() -> pg8000.Connection:
        return pg8000.connect(
            DATABASE_USER,
            unix_sock=str(postgres.socket()),
            password=DATABASE_PASSWORD,
            database=make_url(database_url).database,
        )

    engine = create_engine(f"{name}://", creator=connect, poolclass=NullPool)
    with engine.begin() as connection:
        VERSIONS.metadata.create_all(connection)
        rows = [{"number": 1, "name": "one"}, {"number": 2, "name": "zwei ü"}]
        connection.execute(VERSIONS.insert(), rows)
        named = select(VERSIONS.c.number).where(VERSIONS.c.name.in_(["zwei ü", "3"]))
        assert connection.scalars(named).all() == [2]
    numbered = select(VERSIONS.c.name).where(VERSIONS.c.number != "1")
    with engine.connect() as connection:
        if accepted:
            assert connection.scalars(numbered).all() == ["zwei ü"]
        else:
            # If Postgres accepts this, the dialect isn't needed any more.
            with pytest.raises(ProgrammingError, match="integer <> character varying"):
                connection.scalars(numbered)


def engine_with(name: str, **options: Any) -> Engine:
    return create_engine(f"{name}://", poolclass=NullPool, **options)


@pytest.fixture(scope="module")
def both(postgres: Postgres) -> tuple[Engine, Engine]:
    """psycopg2 and our driver, with one table."""
    postgres.create_database("dialect")
    address = {"user": DATABASE_USER, "password": DATABASE_PASSWORD, "database": "dialect"}
    socket = postgres.socket()
    theirs = engine_with(
        "postgresql+psycopg2",
        connect_args={**address, "host": str(socket.parent), "port": postgres.port},
    )
    ours = engine_with(
        dialect.DRIVER, module=driver, connect_args={**address, "unix_sock": str(socket)}
    )
    with theirs.begin() as connection:
        VERSIONS.metadata.create_all(connection)
        connection.execute(VERSIONS.insert(), {"number": 1, "name": "one"})
    return theirs, ours


BOUNDARIES = [sign * (2**bits + more) for sign in (1, -1) for bits in (31, 63) for more in (-1, 0)]


@pytest.mark.parametrize("number", [1, 10**40, *BOUNDARIES])
def test_an_integer_has_the_type_of_its_literal(both: tuple[Engine, Engine], number: int) -> None:
    comparisons = [
        select(VERSIONS.c.name).where(VERSIONS.c.number == number),
        select(VERSIONS.c.name).where(VERSIONS.c.number <= number),
        select(VERSIONS.c.name).where(VERSIONS.c.number.in_([1, number])),
        text("SELECT pg_typeof(:number)::text").bindparams(number=number),
    ]
    for statement in comparisons:
        found = []
        for engine in both:
            with engine.connect() as connection:
                found.append(connection.scalars(statement).all())
        assert found[0] == found[1]


@pytest.mark.parametrize(
    "state", ["0A000", "22003", "22012", "23502", "23503", "23505", "23514", "23P01", "42P01"]
)
def test_an_error_has_the_class_that_mlflow_expects(
    both: tuple[Engine, Engine], state: str
) -> None:
    raised = []
    for engine in both:
        with engine.connect() as connection, pytest.raises(DBAPIError) as error:
            connection.execute(text(f"DO $$ BEGIN RAISE SQLSTATE '{state}'; END $$"))
        raised.append(type(error.value))
    assert raised[0] == raised[1]

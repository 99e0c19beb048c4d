"""Postgres compares MLflow's strings with integers, as with the driver that MLflow expects."""

import pg8000
import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.pool import NullPool
from tracking_server.database import dialect

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
            # If this is accepted, the dialect isn't needed any more.
            with pytest.raises(ProgrammingError, match="integer <> character varying"):
                connection.scalars(numbered)

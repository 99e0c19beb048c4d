"""pg8000's dialect, without the casts of strings to VARCHAR and of integers to the column's type.

MLflow compares integer columns with strings, such as a version with "1", and with integers that are
too large for the column. With a driver that writes values into the statement, such as psycopg2,
Postgres infers their types. With pg8000 SQLAlchemy casts them: Postgres has no operator that
compares VARCHAR with integers, and it refuses to cast 99999999999 to INTEGER.
"""

from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.pg8000 import PGDialect_pg8000
from sqlalchemy.types import BigInteger, Integer, SmallInteger, String
from sqlalchemy.util import update_copy

DRIVER = "postgresql+tracking_server"
"""The name of the dialect below in a URL."""


class Uncast(PGDialect_pg8000):
    """Sends strings and integers without a cast; `driver` tells Postgres the integers' types.

    https://docs.sqlalchemy.org/en/20/core/connections.html#registering-new-dialects
    """

    supports_statement_cache = True
    colspecs = update_copy(
        PGDialect_pg8000.colspecs,
        {kind: kind for kind in (String, Integer, BigInteger, SmallInteger)},
    )


registry.register(DRIVER.replace("+", "."), __name__, Uncast.__name__)

"""pg8000's dialect, without the cast of strings to VARCHAR.

MLflow compares integer columns with strings, such as a version with "1". With a driver that writes
values into the statement, such as psycopg2, Postgres infers the type of '1'. With pg8000 SQLAlchemy
casts strings to VARCHAR, and Postgres has no operator that compares these with integers.
"""

from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.pg8000 import PGDialect_pg8000
from sqlalchemy.types import String
from sqlalchemy.util import update_copy

DRIVER = "postgresql+tracking_server"
"""The name of the dialect below in a URL."""


class UncastStrings(PGDialect_pg8000):
    """Sends strings without a cast.

    https://docs.sqlalchemy.org/en/20/core/connections.html#registering-new-dialects
    """

    supports_statement_cache = True
    colspecs = update_copy(PGDialect_pg8000.colspecs, {String: String})


registry.register(DRIVER.replace("+", "."), __name__, UncastStrings.__name__)

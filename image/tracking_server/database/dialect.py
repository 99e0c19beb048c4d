"""pg8000's dialect, but that Postgres may take a string for what it stands beside.

MLflow compares integer columns with strings, such as a version with "1". A driver that writes the
values into the statement, as psycopg2 does, leaves it to Postgres what '1' is; SQLAlchemy casts
pg8000's strings to VARCHAR, and Postgres then knows no operator for the two.
"""

from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.pg8000 import PGDialect_pg8000
from sqlalchemy.types import String
from sqlalchemy.util import update_copy

DRIVER = "postgresql+tracking_server"
"""Names the dialect below in a URL."""


class UncastStrings(PGDialect_pg8000):
    """https://docs.sqlalchemy.org/en/20/core/connections.html#registering-new-dialects"""

    supports_statement_cache = True
    colspecs = update_copy(PGDialect_pg8000.colspecs, {String: String})


registry.register(DRIVER.replace("+", "."), __name__, UncastStrings.__name__)

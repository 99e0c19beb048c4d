"""Remembers in the database which revisions have booted completely.

Only such a revision may accept requests before MLflow is imported. Otherwise Cloud Run would send
requests to a revision that can't start.
"""

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

from tracking_server.boot.settings import ServerSettings

if TYPE_CHECKING:
    from sqlalchemy import Connection

KEPT = 20
"""Revisions that are remembered."""

TABLE = "tracking_server_revisions"

IS_KNOWN = f"""
  SELECT version_num = $1 AND EXISTS (SELECT FROM {TABLE} WHERE revision = $2) AS known
  FROM alembic_version"""  # noqa: S608
"""Whether the schema is at a revision, and the server's revision has booted with this database."""

REMEMBER = f"""
  WITH added AS (INSERT INTO {TABLE} (revision) VALUES ($1) ON CONFLICT DO NOTHING)
  DELETE FROM {TABLE} WHERE revision NOT IN (
    SELECT revision FROM {TABLE} ORDER BY booted DESC LIMIT {KEPT})"""  # noqa: S608
"""Stores that a revision has booted, and forgets the oldest ones."""

_CREATE = f"""
  CREATE TABLE IF NOT EXISTS {TABLE}
  (revision text PRIMARY KEY, booted timestamptz NOT NULL DEFAULT now())"""


def revision(env: Mapping[str, str], settings: ServerSettings) -> str | None:
    """Returns what identifies this revision with its settings, None if it has to wait for MLflow.

    With accounts, MLflow decides on logins, and several processes are forked when it is
    imported. Outside of Cloud Run a revision has no name:
    https://cloud.google.com/run/docs/container-contract#services-env-vars
    """
    name = env.get("K_REVISION")
    if settings.default_permission or settings.processes > 1:
        return None
    # `make local` gives the server another port at each start.
    text = f"{name} {replace(settings, port=0)}"
    return sha256(text.encode()).hexdigest() if name else None


class Revisions:
    """The table of revisions, which `schema.ensure` creates."""

    def ready(self, connection: "Connection") -> bool:
        """Whether there is nothing to prepare."""
        return connection.dialect.has_table(connection, TABLE)

    def prepare(self, connection: "Connection") -> None:
        """Create the table."""
        connection.exec_driver_sql(_CREATE)

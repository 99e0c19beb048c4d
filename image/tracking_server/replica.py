"""A pool that hands a viewer's requests the connections of a read replica.

A replica has what was written a moment later. Whoever writes would look for what isn't there yet; a
viewer writes nothing, so all that it reads may be a moment old.
"""

import logging
from time import monotonic
from typing import Any

from pg8000.exceptions import Error, InterfaceError  # type: ignore[import-untyped]
from sqlalchemy import Pool
from sqlalchemy.pool import PoolProxiedConnection

from tracking_server import driver, mlflow_internals
from tracking_server.pool import NestingPool
from tracking_server.viewing import LOOKING

AWAY = 30.0
"""Seconds in which a replica that was not to be reached isn't asked again: to find that out may
take as long as opening a connection may."""

log = logging.getLogger(__name__)


def check_schema(connection: driver.Connection, *_: object) -> None:
    """A replica that hasn't yet seen an upgrade would refuse what MLflow asks."""
    try:
        cursor = connection.cursor()
        cursor.execute("SELECT version_num FROM alembic_version")
        found = cursor.fetchall()
        connection.rollback()
        if found != ([mlflow_internals.latest_schema_revision()],):
            raise InterfaceError("its schema is not this server's yet")
    except Error:
        connection.close()
        raise


class ReplicaPool(NestingPool):
    """The primary's connections, and `replica`'s for who only looks."""

    replica: Pool | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._away_until = 0.0

    def connect(self) -> PoolProxiedConnection:
        if self.replica is not None and LOOKING.get() and monotonic() >= self._away_until:
            try:
                return self.replica.connect()
            except Error as error:
                self._away_until = monotonic() + AWAY
                log.warning("the viewer reads from the primary: the replica is away (%s)", error)
        return super().connect()

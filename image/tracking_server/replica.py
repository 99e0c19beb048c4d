"""A pool that hands a viewer's requests the connections of a read replica.

A replica has what was written a moment later. Whoever writes would look for what isn't there yet; a
viewer writes nothing, so all that it reads may be a moment old.

On Cloud Run a replica that hangs is a socket of Cloud SQL's connector that takes everything and
says nothing, as it does during a long search too. What tells them apart is whether another
connection can be opened meanwhile, so a search may take as long there as on the primary.
"""

import logging
from concurrent.futures import ThreadPoolExecutor
from threading import Thread, get_ident
from time import monotonic, sleep
from typing import Any

from pg8000.exceptions import (  # type: ignore[import-untyped]
    DatabaseError,
    Error,
    InterfaceError,
)
from sqlalchemy.pool import PoolProxiedConnection

from tracking_server import driver, mlflow_internals
from tracking_server.outage import DatabaseUnavailable
from tracking_server.pool import NestingPool
from tracking_server.viewing import LOOKING

PATIENCE = 2.0
"""Seconds that a viewer's request may take before the replica is asked whether it is there, and
between one such question and the next: most requests take milliseconds."""

ANSWER = 5.0
"""Seconds in which it then has to open a connection."""

AWAY = 30.0
"""Seconds after which a replica that is away is asked again. Nobody waits for that."""

log = logging.getLogger(__name__)


def check_schema(connection: driver.Connection, *_: object) -> None:
    """A replica that hasn't yet seen an upgrade would refuse what MLflow asks."""
    try:
        # Not yet the time that a search may take.
        with connection.answering_within(ANSWER):
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
    """The primary's connections, and `replica`'s for who only looks.

    A viewer waits for the replica while that is known to live. Once it is away, those who wait go
    on to the primary, and so do all who come later until it has answered again.
    """

    replica: NestingPool | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._away, self._ask_at = False, 0.0
        self._watched = False
        # Opening a connection may take longer than its answer is waited for.
        self._asking = ThreadPoolExecutor(1, thread_name_prefix="replica-asking")

    def connect(self) -> PoolProxiedConnection:
        replica = self.replica
        if replica is None or not LOOKING.get():
            return super().connect()
        # Who holds one of the primary's takes no other: two who hold one of each and wait for one
        # of the other would wait in vain.
        if self._held[get_ident()] or self._is_away(replica):
            return super().connect()
        self._have_watched(replica)
        try:
            return replica.connect()
        except Error as error:
            self._pass_over(replica, error)
        except DatabaseUnavailable:
            # All of its connections are in use, which is the primary's answer to the same too.
            if not self._away:
                raise
        return super().connect()

    def _is_away(self, replica: NestingPool) -> bool:
        with self._lock:
            if self._away and monotonic() >= self._ask_at:
                self._ask_at = monotonic() + AWAY
                Thread(target=self._look_again, args=(replica,), daemon=True).start()
            return self._away

    def _look_again(self, replica: NestingPool) -> None:
        if self._ask(replica) is None:
            self._away = False
            log.info("the viewer reads from the replica again")

    def _have_watched(self, replica: NestingPool) -> None:
        with self._lock:
            if not self._watched:
                self._watched = True
                Thread(target=self._watch, args=(replica,), daemon=True).start()

    def _watch(self, replica: NestingPool) -> None:
        """Ask the replica whether it is there for as long as somebody waits for it."""
        while True:
            sleep(PATIENCE)
            with self._lock:
                since = replica.busy_since()
                if since is None:
                    self._watched = False
                    return
            if monotonic() - since < PATIENCE:
                continue
            error = self._ask(replica)
            # What it says itself, such as that it has no connection left, it says alive.
            if error is not None and not isinstance(error, DatabaseError):
                self._pass_over(replica, error)
                for connection in replica.in_use():
                    connection.cut()

    def _ask(self, replica: NestingPool) -> BaseException | None:
        """Why no connection could be opened, or None."""
        try:
            return self._asking.submit(_open_another, replica).exception(ANSWER)
        except TimeoutError:
            return TimeoutError(f"no answer within {ANSWER:g} s")

    def _pass_over(self, replica: NestingPool, error: BaseException) -> None:
        with self._lock:
            if not self._away:
                log.warning("the viewer reads from the primary: the replica is away (%s)", error)
            self._away, self._ask_at = True, monotonic() + AWAY
        replica.turn_away()


def _open_another(replica: NestingPool) -> None:
    """Beside those that the pool has, which may all be in use."""
    beside = replica.recreate()
    try:
        beside.connect().close()
    finally:
        beside.dispose()

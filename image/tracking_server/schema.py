"""The database's schema, brought to the server's version once, whoever boots first.

MLflow creates tables under a lock file, which is local to a container. Here a Postgres advisory
lock keeps the other containers waiting, and a container that dies gives it up with its session.
"""

import logging
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, sleep

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from tracking_server import mlflow_internals
from tracking_server.backoff import Backoff
from tracking_server.errors import BootError

ANSWER_TIMEOUT = 10.0
"""Seconds for the first answer of a database that accepts a connection."""
LOCK_DEADLINE = 70.0
"""Seconds to wait for another instance's migration."""

# Any number will do that nothing else in this database uses.
_LOCK_KEY = 0x6D6C666C6F77

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_NEVER_MENDS_ITSELF = {
    "28P01": "refuses the user's password: run pulumi up, which sets it in both places",
    "28000": "refuses the user: run pulumi up, which makes it",
    "3D000": "has no such database: run pulumi up, which makes it",
    "42501": "doesn't let the user do this: run pulumi up, or grant it CREATE on the schema public",
}

log = logging.getLogger(__name__)


def ensure(
    engine: Engine,
    *,
    deadline: float,
    lock_deadline: float = LOCK_DEADLINE,
) -> None:
    """Leave the database with the schema that this MLflow wants.

    A database that doesn't answer yet is asked again for `deadline` seconds.

    Raises:
        BootError: if the database can't be reached in time, refuses, or has a newer schema.
    """
    wanted = mlflow_internals.latest_schema_revision()
    if _first_revision(engine, deadline) == wanted:
        return
    try:
        with engine.connect() as connection:
            _lock(connection, lock_deadline)
            # Whoever held the lock before may have done it.
            found = mlflow_internals.schema_revision(engine)
            if found == wanted:
                return
            if found is not None and found not in mlflow_internals.known_schema_revisions():
                raise BootError(
                    f"the database's schema is at revision {found}, which this MLflow does not "
                    "know: a newer server has upgraded it. Deploy that version again, or restore "
                    "the backup from before the upgrade"
                )
            started = monotonic()
            log.info("schema: from revision %s to %s", found or "none", wanted)
            mlflow_internals.create_or_upgrade_schema(engine)
            log.info("schema: at %s after %.1f s", wanted, monotonic() - started)
    except SQLAlchemyError as error:
        raise BootError(f"the schema could not be upgraded: {_reason(error)}") from error


def _first_revision(engine: Engine, deadline: float) -> str | None:
    """The revision found by the first connection that succeeds."""
    until = monotonic() + deadline
    backoff = Backoff(first=0.1, longest=5.0)
    # In a thread, as a timeout of pg8000's is the socket's, and would cut a migration's statements.
    threads = ThreadPoolExecutor(thread_name_prefix="database")
    while True:
        asked = threads.submit(mlflow_internals.schema_revision, engine)
        try:
            return asked.result(timeout=max(0.1, min(ANSWER_TIMEOUT, until - monotonic())))
        except (SQLAlchemyError, TimeoutError) as error:
            reason = _reason(error) if isinstance(error, SQLAlchemyError) else "it is silent"
            if reason in _NEVER_MENDS_ITSELF.values():
                raise BootError(f"the database {reason}") from error
            if backoff.outlasts(until):
                raise BootError(
                    f"the database can't be reached within {deadline:.0f} s ({reason}): is the "
                    "instance running, and has the service's account roles/cloudsql.client?"
                ) from error
            log.warning("the database can't be reached yet (%s)", reason)
        backoff.wait()


def _lock(connection: Connection, deadline: float) -> None:
    """Take the advisory lock of this session, which ends with its connection."""
    until = monotonic() + deadline
    waiting = False
    # Tried again and again instead of waited for: a waiting statement would hold up
    # CREATE INDEX CONCURRENTLY, and could not be given up.
    take = text("SELECT pg_try_advisory_lock(:key)")
    while not connection.execute(take, {"key": _LOCK_KEY}).scalar_one():
        connection.rollback()
        if not waiting:
            log.info("schema: another instance is upgrading it, waiting")
            waiting = True
        if monotonic() > until:
            raise BootError(
                f"another instance has been upgrading the schema for {deadline:.0f} s: see its "
                "log; this one will be started again"
            )
        sleep(0.1)
    connection.commit()


def _reason(error: SQLAlchemyError) -> str:
    """What to tell of an error, which never is more than its first line."""
    cause: BaseException | None = error.orig if isinstance(error, DBAPIError) else error
    told = cause
    # pg8000 says goodbye on a connection that the server has refused and closed, and that error
    # hides the server's own: https://codeberg.org/tlocke/pg8000
    while cause is not None:
        if cause.args and isinstance(fields := cause.args[0], dict):
            state = str(fields.get("C", ""))
            said = f"{fields.get('M', 'no message')}, SQLSTATE {state}"
            return _NEVER_MENDS_ITSELF.get(state, said)
        cause = cause.__cause__ or cause.__context__
    return str(told).splitlines()[0] if str(told) else type(told).__name__

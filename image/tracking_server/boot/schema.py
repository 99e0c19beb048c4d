"""Upgrades the database's schema to the server's version; the first container to boot does it.

MLflow creates tables under a lock file, which is local to a container. Here a Postgres advisory
lock makes the other containers wait; if the container that holds it dies, the lock ends with its
session. The upgrade is one transaction: if it fails, the schema stays as it was.
"""

import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from time import monotonic, sleep
from typing import Protocol

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from tracking_server.boot.backoff import Backoff
from tracking_server.errors import BootError
from tracking_server.mlflow import internals

ANSWER_TIMEOUT = 10.0
"""Seconds that a database may take to respond after it has accepted a connection."""
LOCK_DEADLINE = 70.0
"""Seconds to wait for another instance's migration, and for tables that are in use."""

# While a migration waits for a table, later statements on that table queue behind it, also those
# of the server that is about to be replaced. After this timeout they get their turn.
_TABLE_TIMEOUT = "3s"
# Otherwise PostgreSQL notices a disconnected client, and frees its locks, much later.
_GONE_CHECK = "1s"

# Any number that nothing else in this database uses as an advisory lock.
_LOCK_KEY = 0x6D6C666C6F77

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_NEVER_MENDS_ITSELF = {
    "28P01": "refuses the user's password: run pulumi up, which sets it in both places",
    "28000": "refuses the user: run pulumi up, which creates it",
    "3D000": "has no such database: run pulumi up, which creates it",
    "42501": "doesn't let the user do this: run pulumi up, or grant it CREATE on the schema public",
}
_IN_USE = {"55P03", "40P01"}  # lock_not_available, deadlock_detected

log = logging.getLogger(__name__)


class Tables(Protocol):
    """Tables in addition to those of MLflow's tracking store."""

    def ready(self, connection: Connection) -> bool:
        """Whether there is nothing to prepare."""

    def prepare(self, connection: Connection) -> None:
        """Create or upgrade the tables."""


def ensure(
    engine: Engine,
    *,
    deadline: float,
    lock_deadline: float = LOCK_DEADLINE,
    more: Tables | None = None,
) -> None:
    """Make sure that the database has the schema that this MLflow requires, and `more` tables.

    If the database doesn't respond yet, try again for `deadline` seconds.

    Raises:
        BootError: if the database can't be reached in time, refuses, or has a newer schema.
    """
    wanted = internals.latest_schema_revision()
    if _first_answer(engine, deadline, more) == (wanted, None, True):
        return
    until = monotonic() + lock_deadline
    try:
        with engine.connect() as connection:
            # Detached from the pool, so that the connection is closed, and the lock freed with it.
            connection.detach()
            _lock(connection, until)
            _upgrade(connection, wanted, until, more)
    except SQLAlchemyError as error:
        reason = _reason(error)
        if _state(error) in _IN_USE:
            reason += ". See pg_stat_activity for who uses the table; start this server again"
        raise BootError(f"the schema could not be upgraded and is as it was: {reason}") from error


def require(engine: Engine, *, deadline: float) -> None:
    """Check that the database has the schema that this MLflow requires, without upgrading it.

    Raises:
        BootError: if the database can't be reached in time, or has another schema.
    """
    wanted = internals.latest_schema_revision()
    found, _, _ = _first_answer(engine, deadline, None)
    if found != wanted:
        raise BootError(
            f"the database's schema is at revision {found or 'none'}, and this version requires "
            f"{wanted}: the server upgrades it when it starts; run the job again after that"
        )


def _upgrade(connection: Connection, wanted: str, until: float, more: Tables | None) -> None:
    """Migrate, and try again while other sessions use a table."""
    backoff = Backoff(first=0.5, longest=3.0)
    while True:
        try:
            with connection.begin():
                connection.execute(text(f"SET LOCAL lock_timeout = '{_TABLE_TIMEOUT}'"))
                connection.execute(
                    text(f"SET LOCAL client_connection_check_interval = '{_GONE_CHECK}'")
                )
                _migrate(connection, wanted)
                if more:
                    more.prepare(connection)
                _hand_over(connection)
        except DBAPIError as error:
            if _state(error) not in _IN_USE or backoff.outlasts(until):
                raise
            log.warning("schema: a table is in use, trying again (%s)", _reason(error))
        else:
            return
        backoff.wait()


def _migrate(connection: Connection, wanted: str) -> None:
    # The previous holder of the lock may have upgraded it already.
    found = internals.schema_revision(connection)
    if found == wanted:
        return
    if found is not None and found not in internals.known_schema_revisions():
        raise BootError(
            f"the database's schema is at revision {found}, which this MLflow does not know: a "
            "newer server has upgraded it. Deploy that version again, or restore the database to "
            "the point in time that is in the upgrade's log line (docs/runbooks.md)"
        )
    started = monotonic()
    log.info("schema: from revision %s to %s%s", found or "none", wanted, _way_back(connection))
    internals.create_or_upgrade_schema(connection)
    log.info("schema: at %s after %.1f s", wanted, monotonic() - started)


def _way_back(connection: Connection) -> str:
    """Returns the point in time to restore to, by the database's clock, which restores use."""
    if not connection.dialect.has_table(connection, "alembic_version"):
        return ""
    moment: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    told = moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return f"; the way back is a restore to {told} (docs/runbooks.md)"


def _hand_over(connection: Connection) -> None:
    """Give the tables to the role that owns the database; all of its users are members.

    A password change creates a new user, which couldn't use tables that belong to the old one.
    """
    if owner := _rightful_owner(connection):
        connection.execute(text(f"REASSIGN OWNED BY CURRENT_USER TO {owner}"))


def _rightful_owner(connection: Connection) -> str | None:
    """Returns the quoted role that should own this user's tables, None if the user owns none."""
    found: str | None = connection.execute(
        text(
            "SELECT quote_ident(pg_get_userbyid(datdba)) FROM pg_database "
            "WHERE datname = current_database() AND pg_has_role(datdba, 'USAGE') "
            "AND datdba <> to_regrole(quote_ident(current_user)) AND EXISTS "
            "(SELECT FROM pg_class WHERE relowner = to_regrole(quote_ident(current_user)))"
        )
    ).scalar_one_or_none()
    return found


def _first_answer(
    engine: Engine, deadline: float, more: Tables | None
) -> tuple[str | None, str | None, bool]:
    """Returns what `_ask` does, as soon as a connection succeeds."""
    until = monotonic() + deadline
    backoff = Backoff(first=0.1, longest=5.0)
    # In a thread: pg8000's timeout is the socket's, and would also end a migration's statements.
    threads = ThreadPoolExecutor(thread_name_prefix="database")
    while True:
        asked = threads.submit(_ask, engine, more)
        try:
            return asked.result(timeout=max(0.1, min(ANSWER_TIMEOUT, until - monotonic())))
        except (SQLAlchemyError, TimeoutError) as error:
            reason = _reason(error) if isinstance(error, SQLAlchemyError) else "no response"
            if reason in _NEVER_MENDS_ITSELF.values():
                raise BootError(f"the database {reason}") from error
            if backoff.outlasts(until):
                raise BootError(
                    f"the database can't be reached within {deadline:.0f} s ({reason}): is the "
                    "instance running, and does the service's account have roles/cloudsql.client?"
                ) from error
            log.warning("the database can't be reached yet (%s)", reason)
        backoff.wait()


def _ask(engine: Engine, more: Tables | None) -> tuple[str | None, str | None, bool]:
    """Returns the revision, the rightful owner, and whether `more` is ready."""
    with engine.connect() as connection:
        return (
            internals.schema_revision(connection),
            _rightful_owner(connection),
            more is None or more.ready(connection),
        )


def _lock(connection: Connection, until: float) -> None:
    """Take the advisory lock for this session; it ends with the connection."""
    started, waiting = monotonic(), False
    # Polled: a statement that waits for the lock would block CREATE INDEX CONCURRENTLY, and
    # couldn't be cancelled.
    take = text("SELECT pg_try_advisory_lock(:key)")
    while not connection.execute(take, {"key": _LOCK_KEY}).scalar_one():
        connection.rollback()
        if not waiting:
            log.info("schema: another instance is upgrading it, waiting")
            waiting = True
        if monotonic() > until:
            raise BootError(
                "another instance has been upgrading the schema for "
                f"{monotonic() - started:.0f} s: see its log; this one will be restarted"
            )
        sleep(0.1)
    connection.commit()


def _reason(error: SQLAlchemyError) -> str:
    """Returns one line about an error."""
    if fields := _fields(error):
        state = fields.get("C", "")
        said = f"{fields.get('M', 'no message')}, SQLSTATE {state}"
        return _NEVER_MENDS_ITSELF.get(state, said)
    told: BaseException | None = error.orig if isinstance(error, DBAPIError) else error
    return str(told).splitlines()[0] if str(told) else type(told).__name__


def _state(error: SQLAlchemyError) -> str:
    """Returns the SQLSTATE, or an empty string if the server sent none."""
    return _fields(error).get("C", "")


def _fields(error: SQLAlchemyError) -> dict[str, str]:
    """Returns the fields of the server's error message.

    https://www.postgresql.org/docs/current/protocol-error-fields.html
    """
    cause: BaseException | None = error.orig if isinstance(error, DBAPIError) else error
    # pg8000 sends a termination message on a connection that the server has refused and closed.
    # The error of that hides the server's own: https://codeberg.org/tlocke/pg8000
    while cause is not None:
        if cause.args and isinstance(fields := cause.args[0], dict):
            return {key: str(value) for key, value in fields.items()}
        cause = cause.__cause__ or cause.__context__
    return {}

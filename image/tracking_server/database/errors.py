"""Translates the database's errors for callers, and tells temporary errors from permanent ones.

For SQLAlchemy's OperationalError, MLflow responds with 503, and its client retries. For every other
error it responds with 400, and the client gives up. pg8000 doesn't raise OperationalError: if the
database restarts, or runs out of connections or disk space, clients would get 400 and lose what
they log.

MLflow also sends an error's whole text, which contains the statement and values of other callers.
This module gives callers one sentence and logs the rest.
"""

import logging
from typing import Any

from pg8000.exceptions import Error, InterfaceError  # type: ignore[import-untyped]
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import OperationalError, StatementError

from tracking_server.database.driver import STATEMENT_TIMEOUT, TOO_LARGE, VIEWERS_STATEMENT_TIMEOUT
from tracking_server.gate.viewer_policy import LOOKING
from tracking_server.logs import request_id

PASSING = frozenset({"08", "25", "28", "40", "53", "55", "57", "58"})
"""SQLSTATE classes of temporary errors: connections, a standby that can't write yet, a changed
password (the next revision has the new one), transaction conflicts, resources, locks, operator
intervention, system errors. https://www.postgresql.org/docs/current/errcodes-appendix.html"""

READ_ONLY = "25006"

CANCELED = "57014"
"""The statement took too long, or its client has disconnected; a retry would fail as well."""

log = logging.getLogger(__name__)


class DatabaseUnavailable(OperationalError):
    """The database can't do this now; the client may try again."""

    def __init__(self, reason: str, cause: BaseException | None = None) -> None:
        super().__init__(None, None, cause or Error(reason))
        self._reason = reason

    def __str__(self) -> str:
        return f"The database can't respond at the moment, try again: {self._reason}"


def translate(context: ExceptionContext) -> DatabaseUnavailable | None:
    """Returns the exception to raise instead of a temporary error, for the event `handle_error`.

    https://docs.sqlalchemy.org/en/20/core/events.html#sqlalchemy.events.DialectEvents.handle_error
    """
    error = context.original_exception
    reason = _passing(error)
    if reason is None:
        if isinstance(context.sqlalchemy_exception, StatementError):
            _conceal(context.sqlalchemy_exception)
        return None
    unavailable = DatabaseUnavailable(reason, error)
    unavailable.connection_invalidated = context.is_disconnect
    return unavailable


def _conceal(error: StatementError) -> None:
    """Replace the text with a sentence for the caller; MLflow checks the class, so that stays."""
    told: Any = error.orig.args[0] if error.orig and error.orig.args else ""
    state = str(told.get("C", "")) if isinstance(told, dict) else ""
    reason = told.get("M", "") if isinstance(told, dict) else told
    log.warning("the database refused a statement: %s (%s): %s", reason, state, error.statement)
    seconds = VIEWERS_STATEMENT_TIMEOUT if LOOKING.get() else STATEMENT_TIMEOUT
    if state == CANCELED:
        text = f"The database stopped this after {seconds} s: ask for less, with a narrower filter."
    elif state == TOO_LARGE:
        text = (
            "The result is larger than this server's memory allows: ask for less, with max_results."
        )
    elif state == READ_ONLY:
        text = "The viewer can't change anything."
    else:
        text = "The database refused this: a value is not valid, or exists already."
    error.args = (f"{text} The server's log has the details of request {request_id()}.",)
    error.statement = error.params = error.code = None


def _passing(error: BaseException) -> str | None:
    """Returns the reason of a temporary error, in Postgres' own words if it has sent any."""
    if not isinstance(error, Error):
        return None
    told: Any = error.args[0] if error.args else ""
    if isinstance(told, dict):
        state = str(told.get("C", ""))
        if state == CANCELED or (state == READ_ONLY and LOOKING.get()):
            return None  # a retry would fail in the same way
        return f"{told.get('M', 'no message')} ({state})" if state[:2] in PASSING else None
    # Without a message from Postgres, the error is about the connection itself.
    return str(told) if isinstance(error, InterfaceError) else None

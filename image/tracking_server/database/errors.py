"""What callers are told of the database's errors, and which of these may pass.

MLflow answers SQLAlchemy's OperationalError with 503, which its client tries again, and every other
error with 400, which it does not. pg8000 has no error of that kind: a database that restarts, has
no connection left or no disk would be the client's fault, and what it logs would be lost.

It also responds with an error's whole text, which holds the statement and values of other callers.
Callers get one sentence here, and the log has the rest.
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
"""Classes of SQLSTATE: connections, a standby that can't write yet, a password that was changed
(the next revision has it), transactions in each other's way, resources, locks, an operator's doing,
the system's. https://www.postgresql.org/docs/current/errcodes-appendix.html"""

READ_ONLY = "25006"

CANCELED = "57014"
"""The statement took too long, or its client has left. It would again."""

log = logging.getLogger(__name__)


class DatabaseUnavailable(OperationalError):
    """The database can't do now what it is asked to."""

    def __init__(self, reason: str, cause: BaseException | None = None) -> None:
        super().__init__(None, None, cause or Error(reason))
        self._reason = reason

    def __str__(self) -> str:
        return f"The database can't answer at the moment, try again: {self._reason}"


def translate(context: ExceptionContext) -> DatabaseUnavailable | None:
    """For SQLAlchemy's event `handle_error`: what to raise instead of a passing error.

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
    """Replace the text by a sentence for the caller; the kind of error stays, as MLflow asks it."""
    told: Any = error.orig.args[0] if error.orig and error.orig.args else ""
    state = str(told.get("C", "")) if isinstance(told, dict) else ""
    reason = told.get("M", "") if isinstance(told, dict) else told
    log.warning("the database refused a statement: %s (%s): %s", reason, state, error.statement)
    seconds = VIEWERS_STATEMENT_TIMEOUT if LOOKING.get() else STATEMENT_TIMEOUT
    if state == CANCELED:
        text = f"The database stopped this after {seconds} s: ask for less, with a narrower filter."
    elif state == TOO_LARGE:
        text = (
            "The answer is larger than this server's memory allows: ask for less, with max_results."
        )
    elif state == READ_ONLY:
        text = "The viewer changes nothing."
    else:
        text = "The database refused this: a value is not valid there, or exists already."
    error.args = (f"{text} The server's log says more at request {request_id()}.",)
    error.statement = error.params = error.code = None


def _passing(error: BaseException) -> str | None:
    """What passes, in Postgres' own words where it has said any."""
    if not isinstance(error, Error):
        return None
    told: Any = error.args[0] if error.args else ""
    if isinstance(told, dict):
        state = str(told.get("C", ""))
        if state == CANCELED or (state == READ_ONLY and LOOKING.get()):
            return None  # the same would happen again
        return f"{told.get('M', 'no message')} ({state})" if state[:2] in PASSING else None
    # Without a message of Postgres' there is only what has become of the connection.
    return str(told) if isinstance(error, InterfaceError) else None

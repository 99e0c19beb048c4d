"""pg8000 with one round trip per statement instead of three, or four for a transaction's first.

pg8000 sends a statement in parts and waits after each: BEGIN, the text, the description of the
result, the values. Postgres also accepts all parts at once, which the protocol calls pipelining:
https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-PIPELINING
The session keeps no named statements, so none can become invalid when the schema changes.

SQLAlchemy uses this module as the driver: `create_engine(module=...)`. It overrides some of
pg8000's methods and reads their attributes; tests/server/test_driver.py compares their source, so
that an upgrade that changes it fails there.
"""

import select
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from socket import SHUT_RDWR
from struct import Struct
from time import monotonic
from typing import Any

from pg8000 import *  # noqa: F403  the other names that SQLAlchemy expects in a driver
from pg8000 import __version__ as __version__
from pg8000 import legacy
from pg8000.converters import (  # type: ignore[import-untyped]
    BIGINT,
    INTEGER,
    NUMERIC,
    make_params,
)
from pg8000.core import (  # type: ignore[import-untyped]
    BIND,
    BIND_COMPLETE,
    DATA_ROW,
    DESCRIBE,
    EXECUTE_MSG,
    NO_DATA,
    PARAMETER_DESCRIPTION,
    PARSE,
    PARSE_COMPLETE,
    READY_FOR_QUERY,
    ROW_DESCRIPTION,
    STATEMENT,
    SYNC_MSG,
    Context,
    ihihih_unpack,
)
from pg8000.exceptions import (  # type: ignore[import-untyped]
    DatabaseError,
    Error,
    InterfaceError,
)

from tracking_server.database.result_limits import ANSWER, Answer, Full, TooLarge
from tracking_server.gate.viewer_policy import LOOKING
from tracking_server.outgoing.egress import own_connection

# Postgres' own style, which needs no translation. A value that occurs twice in a statement is then
# one parameter. Otherwise Postgres refuses the statements of MLflow's trace charts, because it
# compares GROUP BY with SELECT before it knows the values:
# https://github.com/sqlalchemy/sqlalchemy/issues/8204
paramstyle = "numeric_dollar"

SURELY_ALIVE = 5.0
"""Seconds after a response for which an open connection is assumed to be alive."""
PING_TIMEOUT = 5.0
"""Seconds for the response to a ping. If the other end has vanished without closing the connection,
there is none, and a new connection replaces this one."""
STATEMENT_TIMEOUT, VIEWERS_STATEMENT_TIMEOUT = 60, 20
"""Seconds after which Postgres itself ends a statement; less than this server waits for it."""
LEFT_CHECK = 2
"""Seconds between Postgres' checks, during a statement, whether the client is still connected."""
IDLE_IN_TRANSACTION = 120
"""Seconds after which Postgres ends a session that is idle in a transaction."""
PIPELINED_ROWS = 250
"""Rows sent before the responses are read. The responses must fit in the socket's buffer: Postgres
stops reading while that buffer is full."""

TOO_LARGE, TOO_MANY = "54000", "53200"
"""Postgres' own codes for exceeding a program limit and for being out of memory."""

_CLASSES = {
    "0A": legacy.NotSupportedError,
    "22": legacy.DataError,
    "23": legacy.IntegrityError,
    "28": InterfaceError,
}
"""Classes of SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html,
https://www.psycopg.org/docs/errors.html#sqlstate-exception-classes"""

_READ_SIZE = 32 * 1024
_int, _short = Struct("!i"), Struct("!H")
_unpack_int = _int.unpack_from
_unpack_header = Struct("!ci").unpack_from
_UNNAMED = b"\0"
_NULL = _int.pack(-1)
_INFERRED = 0
"""In place of a parameter's type: Postgres infers it from the statement."""
_GOES_WELL = frozenset({PARSE_COMPLETE, BIND_COMPLETE, NO_DATA, PARAMETER_DESCRIPTION})


def _message(code: bytes, data: bytes) -> bytes:
    return code + _int.pack(len(data) + 4) + data


def _parse(statement: str, oids: Sequence[int], encoding: str) -> bytes:
    types = b"".join(_int.pack(max(oid, 0)) for oid in oids)
    text = statement.encode(encoding)
    return _message(PARSE, b"".join((_UNNAMED, text, b"\0", _short.pack(len(oids)), types)))


def _bind(values: Sequence[str | None], encoding: str) -> bytes:
    parts = [_UNNAMED, _UNNAMED, _short.pack(0), _short.pack(len(values))]
    for value in values:
        if value is None:
            parts.append(_NULL)
        else:
            text = value.encode(encoding)
            parts += (_int.pack(len(text)), text)
    parts.append(_short.pack(0))
    return _message(BIND, b"".join(parts))


_DESCRIBE = _message(DESCRIBE, STATEMENT + _UNNAMED)
_BEGIN, _BEGIN_READ_ONLY = (
    "begin transaction",
    f"begin transaction read only; set local statement_timeout to '{VIEWERS_STATEMENT_TIMEOUT}s'",
)
_BEGIN_PARTS = {
    begin: b"".join(
        _parse(part, (), "ascii") + _bind((), "ascii") + EXECUTE_MSG for part in begin.split("; ")
    )
    for begin in (_BEGIN, _BEGIN_READ_ONLY)
}


@lru_cache(256)
def _columns(description: bytes, encoding: str) -> list[dict[str, Any]]:
    """Returns the columns of a row description, as pg8000's cursor has them."""
    columns = []
    (count,) = _short.unpack_from(description)
    at = _short.size
    for _ in range(count):
        end = description.index(b"\0", at)
        name = description[at:end].decode(encoding)
        _, _, type_oid, _, _, _ = ihihih_unpack(description, end + 1)
        columns.append({"name": name, "type_oid": type_oid})
        at = end + 19
    return columns


def _row(buffer: bytes, at: int, decoders: Iterable[Any], encoding: str) -> list[Any]:
    row: list[Any] = []
    at += _short.size
    for decode in decoders:
        (size,) = _unpack_int(buffer, at)
        at += 4
        if size < 0:
            row.append(None)
            continue
        row.append(decode(str(buffer[at : at + size], encoding)))
        at += size
    return row


def _count(answer: Answer, received: int, rows: int) -> None:
    """Count a response; raise the errors of Postgres for which `errors` has messages."""
    try:
        answer.add(received, rows)
    except TooLarge:
        told = {"C": TOO_LARGE, "M": "the result is larger than allowed"}
        raise DatabaseError(told) from None
    except Full:
        told = {"C": TOO_MANY, "M": "the results of other requests use all the memory"}
        raise DatabaseError(told) from None


class Connection(legacy.Connection):  # type: ignore[misc]
    """A connection that needs as few round trips as possible.

    `answer_timeout` is the time in seconds after which a statement fails, None for no limit;
    pg8000's own `timeout` applies only to opening the connection.
    """

    def __init__(self, *args: Any, answer_timeout: float | None = None, **kwargs: Any) -> None:
        self._unread = b""
        self._answered = monotonic()
        self._answer_timeout = answer_timeout
        super().__init__(*args, **kwargs)
        self._usock.settimeout(answer_timeout)
        self._arrivals = select.poll()
        self._arrivals.register(self._usock, select.POLLIN)

    def cursor(self) -> "Cursor":
        return Cursor(self)

    def is_alive(self) -> bool:
        """Whether the server still responds; it is asked only in case of doubt.

        A server that ends a session sends a message and closes the connection, which shows at once
        as data to read.
        """
        if self._usock is None:
            return False
        silent = not self._unread and not self._arrivals.poll(0)
        if silent and monotonic() - self._answered < SURELY_ALIVE:
            return True
        try:
            self._usock.settimeout(PING_TIMEOUT)
            self.execute_simple(";")
            self._usock.settimeout(self._answer_timeout)
        except Error:
            return False
        return True

    def limit_statements(self) -> None:
        """Make Postgres end statements that take too long, or whose client has disconnected.

        https://www.postgresql.org/docs/current/runtime-config-client.html
        """
        self.execute_simple(
            f"set statement_timeout to '{STATEMENT_TIMEOUT}s'; "
            f"set idle_in_transaction_session_timeout to '{IDLE_IN_TRANSACTION}s'"
        )
        # Postgres on macOS doesn't support it: https://www.postgresql.org/docs/current/runtime-config-connection.html
        with suppress(DatabaseError):
            self.execute_simple(f"set client_connection_check_interval to '{LEFT_CHECK}s'")

    def cut(self) -> None:
        """Raise an error at once in a thread that waits for a response; closing would not."""
        if self._usock is not None:
            with suppress(OSError):
                self._usock.shutdown(SHUT_RDWR)

    def commit(self) -> None:
        if self._in_transaction:
            self.execute_simple("commit")

    def rollback(self) -> None:
        if self._in_transaction:
            try:
                self.execute_simple("rollback")
            except InterfaceError:
                # The session is gone, and its transaction with it. An error here would replace
                # the one that caused the rollback.
                self.close()

    def close(self) -> None:
        # The server may be gone, or the connection closed already.
        with suppress(InterfaceError):
            super().close()

    def execute_rows(
        self, statement: str, rows: Iterable[Sequence[Any]], *, oids: Sequence[int], begin: bool
    ) -> Context:
        """Execute a statement once for each row of values, all in one round trip."""
        encoding = self._client_encoding
        parts = [_BEGIN_PARTS[_begin()]] if begin else []
        parts += (_parse(statement, oids, encoding), _DESCRIBE)
        for values in rows:
            parts += (_bind(make_params(self.py_types, values), encoding), EXECUTE_MSG)
        parts.append(SYNC_MSG)
        if self._usock is None:
            raise InterfaceError("connection is closed")
        try:
            self._usock.sendall(b"".join(parts))
        except OSError as error:
            raise InterfaceError("network error") from error
        context = Context(statement)
        self.handle_messages(context)
        return context

    def handle_messages(self, context: Context) -> None:
        """Read the response until the server is ready again, and raise its error if it has one."""
        try:
            self._read_answer(context)
        except BaseException:
            # Otherwise, the next statement would read the rest of this response as its own.
            self.close()
            raise
        self._answered = monotonic()
        if context.error is not None:
            raise context.error

    def _read_answer(self, context: Context) -> None:
        buffer, start = self._unread, 0
        encoding = self._client_encoding
        decoders = context.input_funcs
        answer, counted = ANSWER.get(), 0
        while True:
            available = len(buffer) - start
            # The type, and the length of the rest of the message including its own four bytes.
            code, length = _unpack_header(buffer, start) if available >= 5 else (b"", 4)
            if (missing := 1 + length - available) > 0:
                received = self._receive(missing)
                if answer is not None:
                    rows = len(context.rows or ())
                    _count(answer, len(received), rows - counted)
                    counted = rows
                buffer, start = buffer[start:] + received, 0
                continue
            data, end = start + 5, start + 1 + length
            if code == DATA_ROW:
                context.rows.append(_row(buffer, data, decoders, encoding))
            elif code == ROW_DESCRIPTION:
                context.columns = _columns(buffer[data:end], encoding)
                decoders = [self.pg_types[column["type_oid"]] for column in context.columns]
                if context.rows is None:
                    context.rows = []
            elif code == READY_FOR_QUERY:
                self._transaction_status = buffer[data:end]
                self._unread = buffer[end:]
                if answer is not None:
                    _count(answer, 0, len(context.rows or ()) - counted)
                return
            elif code not in _GOES_WELL:
                self.message_types[code](buffer[data:end], context)
            start = end

    def _receive(self, missing: int) -> bytes:
        """Receive at least one byte; for a long message, all that is missing."""
        try:
            # Through pg8000's file, whose buffer may hold data from the start of the session.
            received: bytes = (
                self._sock.read1(_READ_SIZE) if missing <= _READ_SIZE else self._sock.read(missing)
            )
        except OSError as error:
            raise InterfaceError("network error") from error
        if not received:
            raise InterfaceError("network error")
        return received


class Cursor(legacy.Cursor):  # type: ignore[misc]
    """Sends BEGIN together with the first statement, and many rows of values at once."""

    _input_oids: Sequence[int]

    def execute(self, operation: str, args: Sequence[Any] = ()) -> "Cursor":
        if self._c is None:
            raise InterfaceError("Cursor closed")
        begin = not self._c._in_transaction and not self._c.autocommit
        try:
            if args:
                oids = self._input_oids or _types([args])
                self._context = self._c.execute_rows(operation, [args], oids=oids, begin=begin)
            else:
                # May be several statements, which Postgres accepts only in its simple protocol.
                if begin:
                    self._c.execute_simple(_begin())
                self._context = self._c.execute_simple(operation)
        except DatabaseError as error:
            raise _as_dbapi(error) from error
        self._row_iter = iter(self._context.rows or ())
        self._input_oids = ()
        return self

    def executemany(self, operation: str, param_sets: Iterable[Sequence[Any]]) -> "Cursor":
        rows = list(param_sets)
        # With autocommit, a failing row would also undo the rows before it.
        if len(rows) < 2 or self._c.autocommit or not _only_counts(operation):
            super().executemany(operation, rows)
            return self
        count, oids = 0, self._input_oids or _types(rows)
        try:
            for first in range(0, len(rows), PIPELINED_ROWS):
                self._context = self._c.execute_rows(
                    operation,
                    rows[first : first + PIPELINED_ROWS],
                    oids=oids,
                    begin=not self._c._in_transaction,
                )
                count += self._context.row_count
        except DatabaseError as error:
            raise _as_dbapi(error) from error
        self._context.row_count = count
        self._row_iter = iter(())
        self._input_oids = ()
        return self


def _types(rows: Sequence[Sequence[Any]]) -> list[int]:
    """Returns the type of each column of values, for which Postgres then needs no cast.

    An integer gets the type that Postgres gives to the same literal, as with psycopg2. A comparison
    with an integer that is too large for the column then finds nothing, instead of failing.
    """
    return [_type(values) for values in zip(*rows, strict=True)]


def _type(values: Sequence[Any]) -> int:
    integers = [value for value in values if value is not None]
    if not integers or any(type(value) is not int for value in integers):
        return _INFERRED
    bits = max(max(value, ~value).bit_length() for value in integers)
    return int(INTEGER if bits < 32 else BIGINT if bits < 64 else NUMERIC)


def _begin() -> str:
    """Returns the statement that begins a transaction; a viewer's is read-only."""
    return _BEGIN_READ_ONLY if LOOKING.get() else _BEGIN


def _only_counts(operation: str) -> bool:
    """Whether the response to a statement is certainly short, because it returns no rows."""
    upper = operation.upper()
    return upper.lstrip().startswith(("INSERT", "UPDATE", "DELETE")) and "RETURNING" not in upper


def _as_dbapi(error: DatabaseError) -> Error:
    """Returns the error in the class that MLflow expects, which is psycopg2's.

    pg8000 raises only ProgrammingError, and IntegrityError for a value that exists already.
    `errors` raises OperationalError instead of those that are temporary.
    """
    told = error.args[0]
    state = told["C"] if isinstance(told, dict) else ""
    kind: type[Error] = _CLASSES.get(state[:2], legacy.ProgrammingError)
    return kind(told)


def connect(*args: Any, **kwargs: Any) -> Connection:
    try:
        with own_connection():
            return Connection(*args, **kwargs)
    except OSError as error:
        # pg8000 converts most socket errors to its own class, but not those that happen while it
        # waits for the first responses.
        raise InterfaceError("network error") from error

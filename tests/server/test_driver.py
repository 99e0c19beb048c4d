"""The driver returns what plain pg8000 returns, with fewer round trips."""

import hashlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pg8000
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pg8000 import converters, core, legacy
from tracking_server.database import driver

from fake_google.sql.postgres import Postgres
from tests.server.conftest import DATABASE_PASSWORD, DATABASE_USER

STOOD_IN_FOR = {
    core.CoreConnection: "34d58f60bb8ee422",
    legacy.Connection: "fd00a4cbfcadc30b",
    legacy.Cursor: "b7bb080da51c3f84",
    converters.make_params: "d164156f5ba5b850",
}
"""The code that driver.py overrides or reads, with a digest of the source it was written for."""


@pytest.mark.parametrize("known", STOOD_IN_FOR, ids=lambda known: known.__name__)
def test_pg8000_is_the_version_that_the_driver_was_written_for(known: Any) -> None:
    digest = hashlib.sha256(inspect.getsource(known).encode()).hexdigest()[:16]
    assert digest == STOOD_IN_FOR[known], (
        f"pg8000 has changed {known.__name__}: compare driver.py with it, then note {digest}"
    )


@pytest.fixture(scope="module")
def connect(postgres: Postgres) -> Callable[[Any], Any]:
    """Returns a function that opens connections to this module's database, with either driver."""
    postgres.create_database("driver")

    def open_one(with_driver: Any) -> Any:
        return with_driver.connect(
            user=DATABASE_USER,
            password=DATABASE_PASSWORD,
            database="driver",
            unix_sock=str(postgres.socket()),
            ssl_context=False,
        )

    return open_one


@dataclass
class Pair:
    """Plain pg8000 and the driver, each with its own table `t`."""

    plain: Any
    ours: Any

    def __iter__(self) -> Iterator[Any]:
        yield from (self.plain, self.ours)


@pytest.fixture(scope="module")
def pair(connect: Callable[[Any], Any]) -> Iterator[Pair]:
    both = Pair(plain=connect(pg8000), ours=connect(driver))
    for connection, schema in zip(both, ("plain", "ours"), strict=True):
        cursor = connection.cursor()
        cursor.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        cursor.execute(f"CREATE SCHEMA {schema}")
        cursor.execute(f"SET search_path TO {schema}")
        cursor.execute("CREATE TABLE t (k integer PRIMARY KEY, v text)")
        connection.commit()
    yield both
    for connection in both:
        connection.close()


def emptied(pair: Pair) -> Pair:
    for connection in pair:
        connection.rollback()
        connection.cursor().execute("TRUNCATE t")
        connection.commit()
    return pair


@pytest.fixture
def empty(pair: Pair) -> Pair:
    return emptied(pair)


def outcome(connection: Any, method: str, statement: str, values: Any) -> tuple[Any, ...]:
    """Returns everything visible of a call: its rows or its error, and the state afterwards."""
    cursor = connection.cursor()
    try:
        if method in ("commit", "rollback"):
            getattr(connection, method)()
        else:
            getattr(cursor, method)(statement, values)
    except pg8000.Error as error:
        told = error.args[0]
        state = told["C"] if isinstance(told, dict) else told
        # Plain pg8000 has the same class for almost every error; test_dialect.py has the classes.
        return state, connection._in_transaction
    rows = [list(row) for row in cursor.fetchall()] if cursor.description else None
    # As text, because NaN isn't equal to itself.
    return repr(rows), cursor.description, cursor.rowcount, connection._in_transaction


# ---- values ----------------------------------------------------------------------------------

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
words = st.text("abcdefghij", min_size=1, max_size=9)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "smallint": st.integers(-(2**15), 2**15 - 1),
    "integer": st.integers(-(2**31), 2**31 - 1),
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "boolean": st.booleans(),
    "double precision": st.floats(),
    "numeric": st.decimals(allow_infinity=False),
    "text": text,
    "varchar": text,
    "bytea": st.binary(max_size=40),
    "timestamp": st.datetimes(),
    # pg8000 converts them to UTC, which may be outside Python's range of years at both ends.
    "timestamptz": st.datetimes(
        datetime(2, 1, 1),  # noqa: DTZ001
        datetime(9998, 12, 31),  # noqa: DTZ001
        timezones=st.timezones(),
    ),
    "date": st.dates(),
    "time": st.times(),
    "interval": st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=20)),
    "uuid": st.uuids(),
    "jsonb": st.dictionaries(words, st.none() | st.integers() | words, max_size=3),
    "integer[]": st.lists(st.none() | st.integers(-9, 9), min_size=1, max_size=5),
    "text[]": st.lists(st.none() | words, min_size=1, max_size=5),
}
columns = st.lists(
    st.sampled_from(sorted(VALUES)).flatmap(
        lambda kind: st.tuples(st.just(kind), st.none() | VALUES[kind])
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(columns)
def test_values_are_returned_as_by_plain_pg8000(pair: Pair, columns: list[tuple[str, Any]]) -> None:
    listed = ", ".join(f"${n}::{kind} AS c{n}" for n, (kind, _) in enumerate(columns, start=1))
    values = [value for _, value in columns]
    plain, ours = (outcome(one, "execute", f"SELECT {listed}", values) for one in pair)
    assert plain == ours
    for connection in pair:
        connection.rollback()


# ---- statements, errors, transactions --------------------------------------------------------

keys, texts = st.integers(0, 4), st.none() | words
rows = st.lists(st.tuples(keys, texts), max_size=5)


def one(statement: str, *values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.tuples(st.just("execute"), st.just(statement), st.tuples(*values))


def many(statement: str, sets: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.tuples(st.just("executemany"), st.just(statement), sets)


def ends(method: str) -> st.SearchStrategy[Any]:
    return st.tuples(st.just(method), st.just(""), st.just(()))


steps = st.lists(
    st.one_of(
        one("INSERT INTO t VALUES ($1, $2)", keys, texts),
        one("INSERT INTO t VALUES ($1, $2) RETURNING v, k", keys, texts),
        one("UPDATE t SET v = $2 WHERE k >= $1", keys, texts),
        one("SELECT k, v FROM t WHERE k >= $1 ORDER BY k", keys),
        one("SELECT k, v FROM t ORDER BY k"),
        one("SELECT 1; SELECT 2, 3"),
        one("SELECT 1 / $1::integer", keys),
        one("SELEKT $1", keys),
        one("SELECT $1::integer", words),
        one("DO $$ BEGIN RAISE SQLSTATE '28000'; END $$"),
        one("SAVEPOINT s"),
        one("ROLLBACK TO SAVEPOINT s"),
        one("RELEASE SAVEPOINT s"),
        many("INSERT INTO t VALUES ($1, $2)", rows),
        many("INSERT INTO t VALUES ($1, $2) RETURNING k", rows),
        many("UPDATE t SET v = $2 WHERE k >= $1", rows),
        many("DELETE FROM t WHERE k = $1", st.lists(st.tuples(keys), max_size=3)),
        ends("commit"),
        ends("rollback"),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(steps=steps, autocommit=st.booleans())
def test_statements_have_the_same_outcome_as_with_plain_pg8000(
    pair: Pair, steps: list[tuple[str, str, Any]], autocommit: bool
) -> None:
    for connection in emptied(pair):
        connection.autocommit = autocommit
    for step in [*steps, ("rollback", "", ()), ("execute", "SELECT * FROM t ORDER BY k", ())]:
        plain, ours = (outcome(connection, *step) for connection in pair)
        assert plain == ours, step
    for connection in pair:
        connection.autocommit = False


# ---- round trips -----------------------------------------------------------------------------


def waits(connection: Any, act: Callable[[Any], Any]) -> int:
    """Counts how often a connection waits for the server."""
    count = 0
    handle = connection.handle_messages

    def counted(context: Any) -> None:
        nonlocal count
        count += 1
        handle(context)

    connection.handle_messages = counted
    try:
        act(connection)
    finally:
        del connection.handle_messages
    return count


def inserts(count: int) -> Callable[[Any], Any]:
    return lambda connection: connection.cursor().executemany(
        "INSERT INTO t VALUES ($1, $2)", [(k, "v") for k in range(count)]
    )


def test_the_driver_needs_fewer_round_trips_than_plain_pg8000(empty: Pair) -> None:
    def select(connection: Any) -> None:
        connection.cursor().execute("SELECT v FROM t WHERE k = $1", (1,))

    def waited(act: Callable[[Any], Any]) -> tuple[int, int]:
        return waits(empty.plain, act), waits(empty.ours, act)

    assert waited(select) == (4, 1)
    assert waited(select) == (3, 1)
    assert waited(lambda connection: connection.commit()) == (3, 1)
    assert waited(lambda connection: connection.rollback()) == (0, 0)
    assert waited(inserts(10)) == (1 + 30, 1)
    assert waited(lambda connection: connection.rollback()) == (3, 1)


def test_many_rows_are_sent_in_parts_whose_responses_fit_in_a_socket(empty: Pair) -> None:
    empty.ours.notices.clear()
    assert waits(empty.ours, inserts(2 * driver.PIPELINED_ROWS + 1)) == 3
    assert not empty.ours.notices  # "there is already a transaction in progress"
    cursor = empty.ours.cursor()
    cursor.execute("SELECT count(*) FROM t")
    assert cursor.fetchone() == [2 * driver.PIPELINED_ROWS + 1]
    cursor.executemany("UPDATE t SET v = $1 WHERE k < 2", [("w",)] * (driver.PIPELINED_ROWS + 1))
    assert cursor.rowcount == 2 * (driver.PIPELINED_ROWS + 1)
    empty.ours.rollback()


# ---- the wire --------------------------------------------------------------------------------


@pytest.fixture
def connection(connect: Callable[[Any], Any]) -> Iterator[Any]:
    opened = connect(driver)
    yield opened
    opened.close()


def test_a_value_of_any_size_arrives(connection: Any) -> None:
    cursor = connection.cursor()
    # Sizes around that of one read, and far above it.
    for size in (0, 1, *range(32_700, 32_780), 1_000_000, 20_000_000):
        cursor.execute("SELECT repeat('ü', $1::integer / 2), 7, $2::text", (size, "x" * size))
        assert cursor.fetchall() == (["ü" * (size // 2), 7, "x" * size],)


def test_the_rest_of_a_long_value_is_read_at_once(connection: Any) -> None:
    receive, count = connection._receive, 0

    def counted(missing: int) -> bytes:
        nonlocal count
        count += 1
        received: bytes = receive(missing)
        return received

    connection._receive = counted
    connection.cursor().execute("SELECT repeat('x', $1)", (20_000_000,))
    assert count < 10


def test_executemany_keeps_the_rows_of_the_last_values(empty: Pair) -> None:
    statement = "INSERT INTO t VALUES ($1, $2) RETURNING k"
    seen = [outcome(one, "executemany", statement, [(1, "a"), (2, "b")]) for one in empty]
    assert seen[0] == seen[1]
    assert seen[0][0] == "[[2]]"


def test_a_response_may_arrive_byte_by_byte(connection: Any) -> None:
    class Dripping:
        def __init__(self, file: Any) -> None:
            self.file = file

        def read1(self, _: int) -> bytes:
            return bytes(self.file.read(1))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    connection._sock = Dripping(connection._sock)
    cursor = connection.cursor()
    cursor.execute("SELECT k, repeat('x', k) FROM generate_series(1, $1::integer) AS k", (40,))
    assert cursor.fetchall() == tuple([k, "x" * k] for k in range(1, 41))


def test_data_after_a_response_is_kept_for_the_next_one(connection: Any) -> None:
    ready = b"Z\0\0\0\5I"
    notification = b"A\0\0\0\x13\0\0\0\7news\0hello\0"

    class Coming:
        def __init__(self, *parts: bytes) -> None:
            self._parts = iter(parts)

        def read1(self, _: int) -> bytes:
            return next(self._parts)

    session, connection._sock = connection._sock, Coming(ready + notification, ready)
    connection.handle_messages(core.Context("first"))
    assert not connection.notifications
    connection.handle_messages(core.Context("second"))
    assert list(connection.notifications) == [(7, "news", "hello")]
    connection._sock = session


def test_the_encoding_is_the_sessions(pair: Pair) -> None:
    for encoding in ("LATIN1", "UTF8"):
        found = []
        for connection in pair:
            outcome(connection, "execute", f"SET client_encoding TO {encoding}", ())
            found.append(outcome(connection, "execute", "SELECT $1::text AS ü", ("ü",)))
        assert found[0] == found[1]
        assert found[0][0] == "[['ü']]"


def test_types_of_values_can_be_set_for_one_statement(empty: Pair) -> None:
    seen = []
    for connection in empty:
        cursor = connection.cursor()
        cursor.setinputsizes(legacy.BIGINTEGER)
        for value in (5, "5"):
            cursor.execute("SELECT $1", (value,))
            seen.append((cursor.fetchall(), cursor.description))
        cursor.setinputsizes(legacy.NULLTYPE)
        cursor.execute("SELECT $1::text", (None,))
        cursor.setinputsizes(legacy.INTEGER)
        cursor.executemany("INSERT INTO t SELECT $1 WHERE $1 = $1", [(1,), (2,)])
        connection.rollback()
    assert seen[:2] == seen[2:]
    assert seen[0] != seen[1]


def test_values_that_cannot_be_sent_leave_the_connection_as_it_was(connection: Any) -> None:
    cursor = connection.cursor()
    with pytest.raises(UnicodeEncodeError):
        cursor.execute("SELECT $1::text", ("\ud800",))
    assert not connection._in_transaction
    cursor.execute("SELECT $1::text", ("fine",))
    assert cursor.fetchall() == (["fine"],)


def test_an_unreadable_response_is_not_mistaken_for_the_next_one(
    connect: Callable[[Any], Any], connection: Any
) -> None:
    def refuse(_: str) -> int:
        raise ValueError("unreadable")

    connection.register_in_adapter(legacy.INTEGER, refuse)
    connection.autocommit = True
    cursor = connection.cursor()
    with pytest.raises(ValueError, match="unreadable"):
        cursor.execute("SELECT k::integer, 'old' FROM generate_series(1, $1) AS k", (3,))
    with pytest.raises(driver.InterfaceError, match="connection is closed"):
        cursor.execute("SELECT $1::text", ("new",))
    connect(driver)  # gets the number of the socket that was closed
    assert not connection.is_alive()


def test_a_closed_cursor_and_a_closed_connection_raise(connect: Callable[[Any], Any]) -> None:
    connection = connect(driver)
    cursor = connection.cursor()
    cursor.close()
    with pytest.raises(driver.InterfaceError, match="Cursor closed"):
        cursor.execute("SELECT 1")
    connection.close()
    for values in ((), (1,)):
        with pytest.raises(driver.InterfaceError, match="connection is closed"):
            connection.cursor().execute("SELECT $1", values)


def test_a_change_of_the_schema_is_seen_at_once(connection: Any) -> None:
    """A prepared statement would fail here: "cached plan must not change result type"."""
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE changes (n) AS SELECT 7")
    for kind, expected in (("integer", 7), ("text", "7"), ("double precision", 7.0)):
        cursor.execute(f"ALTER TABLE changes ALTER n TYPE {kind} USING n::{kind}")
        cursor.execute("SELECT n FROM changes WHERE $1::boolean", (True,))
        (found,) = cursor.fetchone()
        assert (found, type(found)) == (expected, type(expected))
    connection.rollback()


def test_a_repeated_value_is_one_parameter(connection: Any) -> None:
    cursor = connection.cursor()
    cursor.execute(
        "SELECT k / $1, count(*) FROM generate_series(1, 9) AS k GROUP BY k / $1 ORDER BY 1", (5,)
    )
    assert cursor.fetchall() == ([0, 4], [1, 5])


# ---- life and death --------------------------------------------------------------------------


def end_session(postgres: Postgres, connection: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("SELECT pg_backend_pid()")
    ((number,),) = cursor.fetchall()
    connection.rollback()
    with postgres.connection() as admin:
        admin.run("SELECT pg_terminate_backend(:number, 5000)", number=number)


def test_a_connection_in_use_is_not_pinged(connection: Any) -> None:
    connection.cursor().execute("SELECT 1")
    connection.rollback()

    def ask(connection: Any) -> None:
        assert connection.is_alive()

    assert waits(connection, ask) == 0
    connection._answered -= driver.SURELY_ALIVE
    assert waits(connection, ask) == 1
    assert waits(connection, ask) == 0


def test_a_session_that_the_server_has_ended_is_recognized(
    postgres: Postgres, connection: Any
) -> None:
    end_session(postgres, connection)
    assert not connection.is_alive()
    assert not connection.is_alive()


def test_a_statement_on_a_dead_connection_is_a_network_error(
    postgres: Postgres, connect: Callable[[Any], Any], connection: Any
) -> None:
    """The message makes SQLAlchemy's dialect replace all connections."""
    with pytest.raises(driver.InterfaceError, match="network error"):
        connect(driver).cursor().execute("SELECT pg_terminate_backend(pg_backend_pid(), $1)", (0,))
    end_session(postgres, connection)
    with pytest.raises(driver.InterfaceError, match="network error"):
        connection.cursor().execute("SELECT $1::text", ("x",))


def test_a_notice_from_the_server_is_not_mistaken_for_its_end(
    connect: Callable[[Any], Any], connection: Any
) -> None:
    cursor = connection.cursor()
    cursor.execute("LISTEN news")
    connection.commit()
    other = connect(driver)
    other.cursor().execute("NOTIFY news, 'hello'")
    other.commit()
    other.close()
    assert connection._arrivals.poll(10_000)
    assert connection.is_alive()
    assert [news[1:] for news in connection.notifications] == [("news", "hello")]

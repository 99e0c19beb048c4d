"""Temporary errors of the database are 503, which MLflow's client retries, instead of 400."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from mlflow.utils.request_utils import _TRANSIENT_FAILURE_RESPONSE_CODES
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError
from tracking_server.database import address, driver, engines
from tracking_server.database.errors import DatabaseUnavailable

from fake_google.sql.postgres import Postgres
from tests.server.conftest import CONNECTION_NAME, StartServer

FAILED = "DO $$ BEGIN RAISE EXCEPTION 'as it says' USING ERRCODE = '{}'; END $$"


@pytest.fixture
def open_engine(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Path], Engine]]:
    def open_one(cloudsql_root: Path) -> Engine:
        monkeypatch.setattr(engines, "_shared_pool", None)
        engines.connect_with(address.parse(database_url).at_root(str(cloudsql_root)), pool_size=4)
        return create_engine(engines.PLUGIN_URL)

    yield open_one
    engines.close_pool()


@pytest.mark.parametrize(
    ("state", "passes"),
    [
        ("08006", True),  # connection_failure
        ("25006", True),  # read_only_sql_transaction: a standby
        ("28P01", True),  # invalid_password: the next revision has the new one
        ("40P01", True),  # deadlock_detected
        ("53100", True),  # disk_full
        ("53300", True),  # too_many_connections
        ("55P03", True),  # lock_not_available
        ("57014", False),  # query_canceled, as by statement_timeout
        ("58030", True),  # io_error
        ("22001", False),  # string_data_right_truncation
        ("23505", False),  # unique_violation
        ("42P01", False),  # undefined_table
    ],
)
def test_a_temporary_error_is_an_operational_error(
    open_engine: Callable[[Path], Engine], cloudsql_root: Path, state: str, passes: bool
) -> None:
    engine = open_engine(cloudsql_root)
    with engine.connect() as connection, pytest.raises(DBAPIError) as raised:
        connection.execute(text(FAILED.format(state)))
    assert isinstance(raised.value, OperationalError) == passes
    if passes:
        assert str(raised.value) == (
            "The database can't respond at the moment, try again: as it says (" + state + ")"
        )
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1


def test_a_missing_database(open_engine: Callable[[Path], Engine], tmp_path: Path) -> None:
    engine = open_engine(tmp_path)
    with pytest.raises(DatabaseUnavailable, match="communication error"), engine.connect():
        pass


def test_a_session_that_the_server_ends(
    open_engine: Callable[[Path], Engine], cloudsql_root: Path, postgres: Postgres
) -> None:
    engine = open_engine(cloudsql_root)
    with engine.connect() as connection:
        number = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        with postgres.connection() as admin:
            admin.run("SELECT pg_terminate_backend(:number, 5000)", number=number)
        with pytest.raises(DatabaseUnavailable) as raised:
            connection.execute(text("SELECT :n"), {"n": 1})
        assert raised.value.connection_invalidated


def test_nested_sessions_that_the_server_ends(
    open_engine: Callable[[Path], Engine], cloudsql_root: Path, postgres: Postgres
) -> None:
    """The rollbacks on the ended sessions don't hide the error in the block."""
    engine = open_engine(cloudsql_root)

    def nested() -> None:
        with engine.begin() as outer, engine.begin() as inner, postgres.connection() as admin:
            for connection in (outer, inner):
                number = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
                admin.run("SELECT pg_terminate_backend(:number, 5000)", number=number)
            raise KeyError

    with pytest.raises(KeyError):
        nested()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1


@pytest.mark.parametrize("resets", [True, False])
def test_a_session_that_ends_while_it_begins(
    open_engine: Callable[[Path], Engine], monkeypatch: pytest.MonkeyPatch, resets: bool
) -> None:
    """It does while the database shuts down, or if its machine fails at that moment."""
    monkeypatch.setattr(engines, "CONNECT_TIMEOUT", 0.5)

    def accept(listener: socket.socket) -> None:
        session, _ = listener.accept()
        with session:
            # A connection closed with unread data is reset; one without a response times out.
            session.recv(1) if resets else session.recv(1 << 16)
            done.wait(0 if resets else 20)

    done = threading.Event()
    with (
        TemporaryDirectory(prefix="mlflow-gcp-wire-") as folder,
        socket.socket(socket.AF_UNIX) as listener,
    ):
        directory = Path(folder, CONNECTION_NAME)
        directory.mkdir()
        listener.bind(str(directory / ".s.PGSQL.5432"))
        listener.listen()
        accepting = threading.Thread(target=accept, args=(listener,))
        accepting.start()
        started = time.monotonic()
        with pytest.raises(DatabaseUnavailable), open_engine(Path(folder)).connect():
            pass
        assert time.monotonic() - started < 5
        done.set()
        accepting.join()


class Wire:
    """A connection between the pool and Postgres that can be cut without notice to either side."""

    def __init__(self, postgres: Path, listening: Path) -> None:
        self._postgres = postgres
        self._passes = threading.Event()
        self._passes.set()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(listening))
        self._listener.listen()
        self._open: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(self._postgres))
            self._open += [client, server]
            deaf = threading.Event()
            for source, target in ((client, server), (server, client)):
                threading.Thread(
                    target=self._pass, args=(source, target, deaf), daemon=True
                ).start()

    def _pass(self, source: socket.socket, target: socket.socket, deaf: threading.Event) -> None:
        try:
            while data := source.recv(65536):
                if not self._passes.is_set():
                    deaf.set()
                if not deaf.is_set():
                    target.sendall(data)
            target.close()
        except OSError:
            pass

    def cut(self) -> None:
        """Cut the connections that are open now; later ones work."""
        self._passes.clear()

    def repair(self) -> None:
        self._passes.set()

    def close(self) -> None:
        for each in self._open:
            each.close()


@contextmanager
def wire(postgres: Postgres) -> Iterator[tuple[Wire, Path]]:
    with TemporaryDirectory(prefix="mlflow-gcp-wire-") as folder:
        directory = Path(folder, CONNECTION_NAME)
        directory.mkdir()
        wire = Wire(postgres.socket(), directory / ".s.PGSQL.5432")
        try:
            yield wire, Path(folder)
        finally:
            wire.close()


def test_a_connection_without_responses_is_replaced(
    open_engine: Callable[[Path], Engine], postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "SURELY_ALIVE", 0)
    monkeypatch.setattr(driver, "PING_TIMEOUT", 0.5)
    with wire(postgres) as (between, root):
        engine = open_engine(root)
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
        # Only data sent while the connection is cut is lost, and with it everything that follows.
        between.cut()
        threading.Timer(0.2, between.repair).start()
        started = time.monotonic()
        with engine.connect() as connection:
            assert connection.execute(text("SELECT 1")).scalar_one() == 1
        assert 0.4 < time.monotonic() - started < 5


def test_a_statement_without_a_response_is_abandoned(
    open_engine: Callable[[Path], Engine], postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "ANSWER_TIMEOUT", 0.5)
    with wire(postgres) as (between, root):
        engine = open_engine(root)
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
            between.cut()
            started = time.monotonic()
            with pytest.raises(DatabaseUnavailable):
                connection.execute(text("SELECT :n"), {"n": 1})
            assert time.monotonic() - started < 5
        between.repair()
        with engine.connect() as connection:
            assert connection.execute(text("SELECT 1")).scalar_one() == 1


def test_the_server_responds_with_503_while_its_database_is_down(
    fork: StartServer, environment: dict[str, str], postgres: Postgres, cloudsql_root: Path
) -> None:
    server = fork(environment).ready()
    link = cloudsql_root / CONNECTION_NAME / ".s.PGSQL.5432"
    with server.client() as client:

        def search() -> int:
            return client.post(
                "/api/2.0/mlflow/runs/search", json={"experiment_ids": ["0"]}
            ).status_code

        assert search() == 200
        postgres.stop()
        try:
            refused = [
                client.post("/api/2.0/mlflow/runs/search", json={"experiment_ids": ["0"]})
                for _ in range(10)
            ]
        finally:
            postgres.start()
            link.unlink()
            link.symlink_to(postgres.socket())
        assert {answer.status_code for answer in refused} == {503}
        assert refused[0].status_code in _TRANSIENT_FAILURE_RESPONSE_CODES
        # A Retry-After header would shorten the time for which MLflow's client retries.
        assert "retry-after" not in refused[0].headers
        assert "SELECT" not in refused[0].text
        assert [search() for _ in range(10)] == [200] * 10

"""No caller can use up the server's memory, time, places or database connections."""

import json
import socket
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import httpx
import pg8000.native  # type: ignore[import-untyped]
import pytest

from fake_google.sql.postgres import Postgres
from tests.server.conftest import DATABASE_PASSWORD, DATABASE_USER, made_database
from tests.server.parity.servers import our_environment, ours
from tests.server.process import AUTHORIZATION, Server, eventually

VIEWER = ("viewer", "canary-viewer-password")
VIEWERS_LOGIN = httpx.BasicAuth(*VIEWER)._auth_header
DATABASE = "resources"
MIB = 1024 * 1024
MEMORY = 512 * MIB
"""Memory of the smallest instance that the settings allow."""

SEARCH = "/api/2.0/mlflow/runs/search"
READ = "/api/2.0/mlflow/experiments/get?experiment_id=0"
ARTIFACT = "/api/2.0/mlflow-artifacts/artifacts/large.bin"
JSON = {"Content-Type": "application/json"}
PATIENCE = 60.0


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, cloudsql_root: Path
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("resources")
    with (
        our_environment(
            folder, made_database(postgres, DATABASE), cloudsql_root, viewer=VIEWER
        ) as environment,
        ours(environment | {"MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "8"}, folder) as running,
    ):
        yield running.ready()


def viewer_of(server: Server) -> httpx.Client:
    limits = httpx.Limits(max_connections=None)
    return server.client(auth=VIEWER, timeout=PATIENCE, limits=limits)


def raw(login: str, method: str, path: str, body: str = "") -> bytes:
    """Returns a request for a client that doesn't read the response."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {login}\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}\r\n{body}".encode()


def memory(server: Server, field: str) -> int:
    """Returns a field of the kernel's status in bytes: VmRSS is resident memory, VmHWM its peak."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith(f"{field}:")]
    return int(line.split()[1]) * 1024


def connection_to(postgres: Postgres) -> pg8000.native.Connection:
    return pg8000.native.Connection(
        DATABASE_USER,
        unix_sock=str(postgres.socket()),
        password=DATABASE_PASSWORD,
        database=DATABASE,
    )


@contextmanager
def locked(postgres: Postgres) -> Iterator[Callable[[], int]]:
    """Lock the table of runs, so that every search waits. Yields a count of waiting statements."""
    with closing(connection_to(postgres)) as holder, closing(connection_to(postgres)) as seen:

        def waiting() -> int:
            [[count]] = seen.run(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = :name AND wait_event_type = 'Lock'",
                name=DATABASE,
            )
            return int(count)

        holder.run("BEGIN")
        holder.run("LOCK TABLE runs IN ACCESS EXCLUSIVE MODE")
        try:
            yield waiting
        finally:
            holder.run("ROLLBACK")


def test_the_session_has_its_limits(server: Server, postgres: Postgres) -> None:
    """Postgres itself ends long statements, the viewer's sooner than the user's."""
    search = {"experiment_ids": ["0"]}
    with ExitStack() as stack, ThreadPoolExecutor(2) as threads, locked(postgres) as waiting:
        clients = [stack.enter_context(client) for client in (server.client(), viewer_of(server))]
        asked = [threads.submit(client.post, SEARCH, json=search) for client in clients]
        assert eventually(lambda: waiting() == 2)
        # The viewer's statement ends first, with an error that clients don't retry.
        assert eventually(lambda: waiting() == 1)
        assert not asked[0].done()
        assert asked[1].result(PATIENCE).status_code == 400
    assert asked[0].result(PATIENCE).status_code == 200


def test_a_disconnected_clients_statement_is_cancelled(server: Server, postgres: Postgres) -> None:
    request = raw(AUTHORIZATION, "POST", SEARCH, json.dumps({"experiment_ids": ["0"]}))
    with locked(postgres) as waiting:
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(request)
            assert eventually(lambda: waiting() == 1)
        # Long before the statement's own timeout.
        assert eventually(lambda: waiting() == 0, seconds=15)
    with server.client() as client:
        assert client.get(READ).status_code == 200


def test_a_viewers_searches_leave_the_user_connections(server: Server, postgres: Postgres) -> None:
    search = {"experiment_ids": ["0"]}
    with (
        viewer_of(server) as viewer,
        server.client() as user,
        ThreadPoolExecutor(30) as threads,
        locked(postgres) as waiting,
    ):
        asked = [threads.submit(viewer.post, SEARCH, json=search) for _ in range(30)]
        assert eventually(lambda: waiting() > 0)
        for _ in range(20):
            assert user.get(READ).status_code == 200
        assert not any(one.done() for one in asked)
        assert waiting() <= 4
    assert {one.result(PATIENCE).status_code for one in asked} <= {200, 400, 503}


@pytest.fixture(scope="module")
def large(server: Server) -> int:
    """Returns the size of an artifact in the bucket, in bytes."""
    with server.client() as client:
        answer = client.put(ARTIFACT, content=iter([bytes(MIB)] * 24))
        assert answer.status_code == 200, answer.text
    return 24 * MIB


def test_unread_downloads_of_the_viewer_leave_the_user_places(server: Server, large: int) -> None:
    request = raw(VIEWERS_LOGIN, "GET", ARTIFACT)
    with ExitStack() as stack, server.client() as user, viewer_of(server) as viewer:
        for _ in range(100):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(request)
        assert eventually(lambda: viewer.get(READ).status_code == 503)
        for _ in range(20):
            assert user.get(READ).status_code == 200
    with viewer_of(server) as viewer:
        assert eventually(lambda: viewer.get(READ).status_code == 200)


# ---- memory ----------------------------------------------------------------------------------


@pytest.fixture
def many_runs(postgres: Postgres, server: Server) -> Iterator[None]:
    with closing(connection_to(postgres)) as database:
        database.run(
            "INSERT INTO runs (run_uuid, experiment_id, user_id, lifecycle_stage, status,"
            " start_time, artifact_uri)"
            " SELECT md5(n::text), 0, 'x', 'active', 'FINISHED', n, 'mlflow-artifacts:/0'"
            " FROM generate_series(1, 6000) n"
        )
        database.run(
            "INSERT INTO params (run_uuid, key, value) SELECT md5(n::text), 'key' || m, 'value'"
            " FROM generate_series(1, 6000) n, generate_series(1, 20) m"
        )
    yield
    with closing(connection_to(postgres)) as database:
        database.run("DELETE FROM params")
        database.run("DELETE FROM runs")


def test_a_result_page_that_is_too_large_is_refused(server: Server, many_runs: None) -> None:
    """Query results are limited for one request, whatever `max_results` allows."""
    with server.client() as user, viewer_of(server) as viewer:
        for client, fits in ((user, 500), (viewer, 200)):
            search = {"experiment_ids": ["0"], "max_results": 6000}
            refused = client.post(SEARCH, json=search)
            assert refused.status_code == 400
            assert "max_results" in refused.json()["message"]
            # The memory is freed, so that further requests succeed.
            for _ in range(3):
                answer = client.post(SEARCH, json=search | {"max_results": fits})
                assert answer.status_code == 200, answer.text


def test_an_unread_response_counts(server: Server) -> None:
    """A response stays in memory until it is read, so further ones have to wait."""
    # More than the kernel keeps for a connection.
    tags = [{"key": f"t{number}", "value": "x" * 8000} for number in range(200)]
    with ExitStack() as stack, server.client() as user, viewer_of(server) as viewer:
        created = user.post("/api/2.0/mlflow/experiments/create", json={"name": "unread"})
        search = {"experiment_ids": [created.json()["experiment_id"]]}
        for _ in range(3):
            fields = {"experiment_id": search["experiment_ids"][0], "tags": tags}
            assert user.post("/api/2.0/mlflow/runs/create", json=fields).status_code == 200
        unread = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        unread.sendall(raw(VIEWERS_LOGIN, "POST", SEARCH, json.dumps(search)))
        # The viewer's share of the memory holds one such response.
        assert eventually(lambda: viewer.post(SEARCH, json=search).status_code == 503)
        assert user.post(SEARCH, json=search).status_code == 200
        unread.close()
        assert eventually(lambda: viewer.post(SEARCH, json=search).status_code == 200)


def bomb(size: int) -> bytes:
    compress = zlib.compressobj(wbits=31)
    pieces = [compress.compress(bytes(MIB)) for _ in range(size // MIB)]
    return b"".join([*pieces, compress.flush()])


def filled(start: bytes, filling: bytes, end: bytes, size: int) -> bytes:
    return start + filling * ((size - len(start) - len(end)) // len(filling)) + end


TRACES = {"Content-Type": "application/x-protobuf", "X-MLflow-Experiment-Id": "0"}


def attacks() -> dict[str, tuple[str, str, dict[str, str], bytes]]:
    """Returns the method, path, headers and body of each request."""
    upload = "/api/2.0/mlflow-artifacts/mpu/create/x"
    return {
        "a filter of 60 MB": (
            *("POST", SEARCH, JSON),
            filled(b'{"filter":"', b"metrics.x > 1 and ", b'"}', 60 * MIB),
        ),
        "a filter of 30 MB": (
            *("POST", SEARCH, JSON),
            filled(b'{"filter":"', b"metrics.x > 1 and ", b'"}', 30 * MIB),
        ),
        "empty objects": (*("POST", SEARCH, JSON), filled(b"[", b"{},", b"{}]", 31 * MIB)),
        "numbers": (
            *("POST", SEARCH, JSON),
            filled(b'{"experiment_ids":[', b"1,", b"1]}", 31 * MIB),
        ),
        "one long string": (*("POST", SEARCH, JSON), filled(b'{"x":"', b"a", b'"}', 31 * MIB)),
        "one long string of wide characters": (
            *("POST", SEARCH, JSON),
            filled('{"x":"\U0001f600'.encode(), b"a", b'"}', 31 * MIB),
        ),
        "escaped wide characters": (
            *("POST", SEARCH, JSON),
            filled(b'{"x":"\\ud83d\\ude00', b"a", b'"}', 31 * MIB),
        ),
        "escapes": (*("POST", SEARCH, JSON), filled(b'"', b'\\"', b"", 31 * MIB)),
        "brackets": (*("POST", SEARCH, JSON), b"[" * (31 * MIB)),
        "JSON in a string": (
            *("POST", "/api/3.0/mlflow/datasets/d-0/records", JSON),
            filled(b'{"records":"[', b"{},", b'{}]"}', 31 * MIB),
        ),
        "escaped JSON in a string": (
            *("POST", "/api/3.0/mlflow/datasets/d-0/records", JSON),
            filled(b'{"records":"[', b"\\u007b\\u007d\\u002c", b'{}]"}', 31 * MIB),
        ),
        "JSON in UTF-16": (
            *("POST", SEARCH, JSON),
            ("[" + "{}," * (5 * MIB) + "{}]").encode("utf-16-le"),
        ),
        "gzip": ("POST", "/v1/traces", TRACES | {"Content-Encoding": "gzip"}, bomb(300 * MIB)),
        "gzip of gzip's smallest": (
            *("POST", "/v1/traces", TRACES | {"Content-Encoding": "gzip"}),
            zlib.compress(b"", wbits=31) * 100_000,
        ),
        "empty spans": (
            *("POST", "/v1/traces", TRACES),
            b"\x0a\xff\xff\xff\x0e\x12\xfb\xff\xff\x0e" + b"\x12\x00" * (15 * MIB),
        ),
        "parts": ("POST", upload, JSON, b'{"path":"x","num_parts":1500000}'),
        "a GET with a body": ("GET", READ, JSON, bytes(60 * MIB)),
        "a GraphQL query": (
            *("POST", "/graphql", JSON),
            filled(b'{"query":"{', b"a ", b'}"}', 31 * MIB),
        ),
        "a form": (
            *("POST", SEARCH, {"Content-Type": "application/x-www-form-urlencoded"}),
            filled(b"", b"a=b&", b"", 31 * MIB),
        ),
    }


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read in /proc")
def test_caches_do_not_grow_with_a_viewers_requests(server: Server) -> None:
    """Sends statements with ever new shapes, and ever new paths."""
    operators = ("<", ">", "<=", ">=", "=", "!=")
    with viewer_of(server) as viewer:
        viewer.post(SEARCH, json={"experiment_ids": ["0"]})
        before = memory(server, "VmRSS")
        for number in range(150):
            terms = [
                f"metrics.m{n} {operators[(number * 7 + n * number) % 6]} 1" for n in range(18)
            ]
            search = {"experiment_ids": ["0"], "filter": " and ".join(terms)}
            assert viewer.post(SEARCH, json=search).status_code == 200
        for number in range(500):
            viewer.get(f"/{number}-{'x' * 30_000}")
        assert memory(server, "VmRSS") - before < 128 * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read in /proc")
def test_memory_stays_within_the_smallest_instance(server: Server) -> None:
    """The user sends all attacks in turn, and then both callers together, while a client logs."""
    done = threading.Event()
    logged: list[int] = []

    def log() -> None:
        with server.client() as client:
            fields = {"experiment_id": "0"}
            run = client.post("/api/2.0/mlflow/runs/create", json=fields).json()["run"]
            metric = {"run_id": run["info"]["run_id"], "key": "m", "value": 1.0, "timestamp": 1}
            while not done.is_set():
                metric["timestamp"] += 1
                answer = client.post("/api/2.0/mlflow/runs/log-metric", json=metric)
                logged.append(answer.status_code)

    def attack(client: httpx.Client, name: str) -> int:
        method, path, headers, body = made[name]
        return client.request(method, path, headers=headers, content=body).status_code

    made = attacks()
    with ThreadPoolExecutor(12) as threads, server.client() as user, viewer_of(server) as viewer:
        user.timeout = viewer.timeout = httpx.Timeout(5 * PATIENCE)
        logging = threads.submit(log)
        # The executor waits for the log, also when an attack fails.
        try:
            found: dict[str, int] = {}
            for name in made:
                found[name] = attack(user, name)
                most = memory(server, "VmHWM")
                assert most < MEMORY, f"{name}: {most // MIB} MiB"
            together = [threads.submit(attack, user, name) for name in made]
            together += [threads.submit(attack, viewer, name) for name in made]
            found |= {f"together {n}": one.result() for n, one in enumerate(together)}
        finally:
            done.set()
        logging.result()
    assert set(found.values()) <= {200, 400, 403, 413, 503}, found
    assert logged
    assert set(logged) == {200}
    assert memory(server, "VmHWM") < MEMORY, f"{memory(server, 'VmHWM') // MIB} MiB"

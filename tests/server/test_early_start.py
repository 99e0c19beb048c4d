"""A revision that has booted before serves while MLflow is still being imported."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest
from pg8000.native import Connection
from starlette.types import Message
from tracking_server import __main__, middleware
from tracking_server.boot import known, settings
from tracking_server.database import address
from tracking_server.errors import BootError
from tracking_server.hot_routes.connections import Connections
from tracking_server.hot_routes.statements import SCHEMA_REVISION
from tracking_server.serve.later import Later

from tests.server.conftest import StartServer
from tests.server.process import Server, eventually

HOT = "/api/2.0/mlflow/experiments/get?experiment_id=0"
BY_MLFLOW = "/api/2.0/mlflow/registered-models/search"
CREATE = "/api/2.0/mlflow/runs/create"
ARTIFACT = "/api/2.0/mlflow-artifacts/artifacts/0/none"


@contextmanager
def import_waits(database_url: str, cloudsql_root: Path) -> Iterator[Connection]:
    """Lock a table that a boot reads when the import is done; yield an administrator's connection.

    This read is the last step of a boot before requests can reach MLflow.
    """
    found = address.parse(database_url).at_root(str(cloudsql_root))
    with Connection(
        found.username,
        password=found.password,
        database=found.database,
        unix_sock=found.unix_socket,
        ssl_context=False,
    ) as connection:
        connection.run("BEGIN")
        connection.run("LOCK TABLE secrets IN ACCESS EXCLUSIVE MODE")
        yield connection
        connection.run("ROLLBACK")


def messages(server: Server) -> list[str]:
    return [str(entry["message"]) for entry in server.entries()]


@pytest.fixture
def revision(fork: StartServer, environment: dict[str, str]) -> dict[str, str]:
    """Returns the environment of a revision that has booted."""
    environment = environment | {"K_REVISION": "mlflow-00001-abc"}
    server = fork(environment).ready()
    lines = messages(server)
    [booted] = [line for line in lines if line.startswith("booted in")]
    [serving] = [line for line in lines if line.startswith("serving on")]
    assert lines.index(booted) < lines.index(serving)
    assert server.stop() == 0
    return environment


def test_a_known_revision_serves_before_mlflow_is_imported(
    fork: StartServer, revision: dict[str, str], database_url: str, cloudsql_root: Path
) -> None:
    with ThreadPoolExecutor(4) as threads:
        with import_waits(database_url, cloudsql_root):
            server = fork(revision).ready()
            client = server.client()
            found = client.get(HOT)
            assert (found.status_code, found.json()["experiment"]["name"]) == (200, "Default")
            assert client.get("/").status_code == 200
            assert client.get(HOT, auth=("mlflow", "wrong")).status_code == 401
            named = {"experiment_id": "0", "run_name": "n", "start_time": 1}
            assert client.post(CREATE, json=named).status_code == 200
            waiting = [
                threads.submit(client.get, BY_MLFLOW),
                threads.submit(client.get, ARTIFACT),
                threads.submit(client.post, CREATE, json={"experiment_id": "0"}),
                threads.submit(client.get, HOT, headers={"Origin": server.url}),
            ]
            early = client.get(HOT).headers
            assert not any(request.done() for request in waiting)
            assert not any(line.startswith("booted in") for line in messages(server))
        assert [request.result().status_code for request in waiting] == [200, 404, 200, 200]
        late = client.get(HOT).headers
        for headers in (early, late):
            del headers["date"]
        assert late.multi_items() == early.multi_items()
        client.close()
    assert server.stop() == 0


def test_waiting_requests_are_refused_if_mlflow_does_not_start(
    fork: StartServer, revision: dict[str, str], database_url: str, cloudsql_root: Path
) -> None:
    with (
        ThreadPoolExecutor(1) as threads,
        import_waits(database_url, cloudsql_root) as connection,
    ):
        server = fork(revision).ready()
        client = server.client()
        waiting = threads.submit(client.get, BY_MLFLOW)

        def cut() -> bool:
            cut_all = (
                "SELECT pg_terminate_backend(pid) FROM pg_locks "
                "WHERE NOT granted AND relation = 'secrets'::regclass"
            )
            return bool(connection.run(cut_all))

        assert eventually(cut)
        assert waiting.result().status_code == 503
        client.close()
        assert server.process.wait(30) == 1


def test_an_import_that_never_ends_ends_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(__main__, "LONGEST_START", 0.01)
    monkeypatch.setattr(middleware, "assemble", lambda *_: SimpleNamespace(app=None, **layers))
    layers = {"mlflow": Later(), "transfers": Later()}
    server = __main__.TrackingServer(Any, Any, Future(), revision="1")  # type: ignore[arg-type]
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def start() -> None:
        waiting = asyncio.create_task(layers["mlflow"]({"path": "/"}, AsyncMock(), send))
        with pytest.raises(BootError, match="MLflow isn't ready"):
            await server.start()
        await waiting

    asyncio.run(start())
    assert sent[0]["status"] == 503


def test_a_revision_is_known_by_its_name_and_its_settings(environment: dict[str, str]) -> None:
    name = {"K_REVISION": "mlflow-00001-abc"}

    def of(**changed: str) -> str | None:
        env = environment | {"GCP_PROJECT": "my-project"} | name | changed
        return known.revision(env, settings.load(env))

    assert of(PORT="1") == of(PORT="2")
    changes = ({"K_REVISION": "mlflow-00002-abc"}, {"MAX_CONCURRENCY": "10"})
    assert len({of(), *(of(**changed) for changed in changes)}) == 3
    assert of(K_REVISION="") is None
    assert of(ACCOUNTS_DEFAULT_PERMISSION="READ") is None
    assert of(WEB_CONCURRENCY="2", MLFLOW_SQLALCHEMYSTORE_POOL_SIZE="20") is None


def test_only_what_has_booted_is_known(database_url: str, cloudsql_root: Path) -> None:
    database = address.parse(database_url).at_root(str(cloudsql_root))

    async def ask() -> None:
        connections = Connections(database, count=1)
        await connections.open()

        async def is_known(revision: str, schema: str = SCHEMA_REVISION) -> bool:
            [row] = await connections.fetch(known.IS_KNOWN, schema, revision)
            return bool(row["known"])

        assert not await is_known("1")
        for number in range(known.KEPT + 2):
            for _ in range(2):
                await connections.fetch(known.REMEMBER, str(number))
        assert not await is_known("0")
        assert await is_known(str(known.KEPT + 1))
        assert not await is_known(str(known.KEPT + 1), "another")
        await connections.close()

    asyncio.run(ask())

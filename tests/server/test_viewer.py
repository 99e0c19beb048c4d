"""The viewer can't change anything: checked for every call, in the database and the bucket.

Each call of the parity tests, which reach every route, is sent as the viewer and then as the user.
A call that changes something is recognized by the database and the bucket, not by a list.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import pg8000.native
import pytest
from sqlalchemy.exc import ProgrammingError
from tracking_server.database import address, engines
from tracking_server.gate.gate import ONLY_VIEWER
from tracking_server.gate.viewer_policy import LOOKING, may_view

from fake_google.sql.postgres import Postgres
from tests.server.conftest import DATABASE_PASSWORD, DATABASE_USER, made_database
from tests.server.parity.call import Call, found
from tests.server.parity.calls import SEQUENCE
from tests.server.parity.routes import Route, Router, every_route
from tests.server.parity.servers import our_environment, ours, upstream
from tests.server.test_parity import bare_calls

VIEWER = ("viewer", "canary-viewer")

REFUSED_ALL_THE_SAME = {
    "/api/2.0/mlflow-artifacts/mpu/": "begins, ends or gives up an upload",
    "/api/2.0/mlflow/artifacts/presigned-upload-url": "the address lets its holder upload",
    "/api/2.0/mlflow/gateway-proxy": "sends a request to another server",
    "/api/2.0/mlflow/webhooks/": "sends a request to the receiver",
    "/api/3.0/jobs/": "jobs, which this server doesn't run",
    "/api/3.0/mlflow/datasets/": "deletes the dataset's records, which don't exist here",
    "/api/3.0/mlflow/assistant/": "writes into the server's home, asks models, runs programs",
    "/api/3.0/mlflow/genai/evaluate/invoke": "jobs",
    "/api/3.0/mlflow/issues/invoke": "jobs",
    "/api/3.0/mlflow/jobs/": "jobs",
    "/api/3.0/mlflow/prompt-optimization/jobs": "jobs",
    "/api/3.0/mlflow/scorer/invoke": "jobs",
    "/api/3.0/mlflow/scorers/online-config": "jobs",
    "/api/3.0/mlflow/ui-telemetry": "sends usage data to MLflow's makers",
    "/api/3.0/mlflow/workspaces": "workspaces, which are disabled",
    "/gateway/": "calls models, which costs money",
    "/v1/traces": "logs",
}
"""Routes whose calls here change neither database nor bucket, and why they are refused."""

WRITES_WHILE_IT_LOOKS = "/label-schemas/list"
"""The first read of an experiment's questions creates its default one."""


class Behind:
    """Snapshots of database and bucket, with each table and object as a comparable value."""

    def __init__(self, connection: pg8000.native.Connection, index: Path) -> None:
        self._connection, self._index = connection, index
        self._writers = ""
        self._tables: dict[str, Any] = {}

    def now(self) -> tuple[dict[str, Any], list[Any]]:
        # Only transactions that write get a number; without a new number, nothing was written.
        [[writers]] = self._connection.run("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")
        if writers != self._writers:
            self._writers = writers
            self._tables = {table: content for table, *content in self._connection.run(self._all)}
        with closing(sqlite3.connect(f"file:{self._index}?mode=ro", uri=True)) as index:
            objects = index.execute("SELECT * FROM objects ORDER BY bucket, name").fetchall()
        return self._tables, objects

    @cached_property
    def _all(self) -> str:
        """The statement that reads the contents of all tables."""
        tables = self._connection.run("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return " UNION ALL ".join(
            f"SELECT {pg8000.native.literal(table)}, count(*),"  # noqa: S608
            " md5(string_agg(r::text, ',' ORDER BY r::text))"
            f" FROM {pg8000.native.identifier(table)} AS r"
            for [table] in tables
        )


@dataclass
class Seen:
    """The findings for each route."""

    refused: set[Route] = field(default_factory=set)
    allowed: set[Route] = field(default_factory=set)
    changing: set[Route] = field(default_factory=set)


@contextmanager
def serving(
    folder: Path, postgres: Postgres, cloudsql_root: Path
) -> Iterator[tuple[httpx.Client, httpx.Client, Behind]]:
    """Yield the user's client, the viewer's client, and the server's database and bucket."""
    url = made_database(postgres, "viewed")
    with (
        our_environment(folder, url, cloudsql_root, viewer=VIEWER) as environment,
        # Otherwise the gateway logs its traces after the response.
        ours(
            environment | {"MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false"}, folder, forked=True
        ) as server,
        server.ready().client() as user_client,
        server.client() as viewer_client,
        closing(
            pg8000.native.Connection(
                DATABASE_USER,
                unix_sock=str(postgres.socket()),
                password=DATABASE_PASSWORD,
                database="viewed",
            )
        ) as connection,
    ):
        viewer_client.auth = httpx.BasicAuth(*VIEWER)
        [index] = (folder / "google").rglob("index.db")
        yield user_client, viewer_client, Behind(connection, index)


def is_refused(answer: httpx.Response) -> bool:
    return answer.status_code == 403 and answer.content == ONLY_VIEWER.body["body"]


def test_the_viewer_can_read_everything_and_change_nothing(
    tmp_path: Path, postgres: Postgres, cloudsql_root: Path
) -> None:
    router, seen = Router(), Seen()

    def send(client: httpx.Client, call: Call) -> httpx.Response:
        return client.request(call.method, call.path, **call.options())

    with (
        upstream() as upstream_url,
        serving(tmp_path, postgres, cloudsql_root) as (user, viewer, behind),
    ):
        names = {"mark": "0c01", "upstream": upstream_url, "home": str(tmp_path)}
        names["server"] = user.base_url.netloc.decode()
        for template in SEQUENCE:
            call = template.filled(names)
            before = behind.now()
            viewed = send(viewer, call)
            assert behind.now() == before, f"the viewer's {call} changed something"
            done = send(user, call)
            changed = behind.now() != before
            if done.status_code < 300:
                names |= {k: found(done.json(), place) for k, place in call.keep.items()}
            if is_refused(viewed):
                assert not is_refused(done)
            elif changed:
                assert call.path.endswith(WRITES_WHILE_IT_LOOKS), call
                assert "The viewer can't change anything" in viewed.text, call
            else:
                assert viewed.status_code == done.status_code, call
            if route := router.route(call.method, call.path.partition("?")[0]):
                (seen.refused if is_refused(viewed) else seen.allowed).add(route)
                if changed:
                    seen.changing.add(route)
        before = behind.now()
        for call in bare_calls():
            send(viewer, call.filled({"home": str(tmp_path)}))
        assert behind.now() == before
    idle = {route for route in seen.refused - seen.changing if not _explained(route)}
    assert not idle, "refused, although the call changes nothing: " + ", ".join(map(str, idle))
    # Otherwise this would test the calls, not the credentials.
    assert len(seen.changing) > 80
    assert len(seen.allowed) > 80


def _explained(route: Route) -> bool:
    path = route.template.replace("/ajax-api/", "/api/")
    return route.method == "OPTIONS" or path.startswith(tuple(REFUSED_ALL_THE_SAME))


def test_both_prefixes_of_a_route_are_treated_alike() -> None:
    for route in every_route():
        other = route.path.replace("/ajax-api/", "/api/")
        assert may_view(route.method, route.path) == may_view(route.method, other), route


@pytest.mark.parametrize("looking", [True, False])
def test_the_database_refuses_changes_by_a_viewer(
    environment: dict[str, str], database_url: str, cloudsql_root: Path, looking: bool
) -> None:
    engines.connect_with(address.parse(database_url).at_root(str(cloudsql_root)), pool_size=1)
    engine = engines.single_connection_engine()
    refused = pytest.raises(ProgrammingError, match="in a read-only transaction")
    before = LOOKING.set(looking)
    try:
        for change in ("CREATE TABLE t (n int)", "CREATE TABLE u (n int); CREATE TABLE v (n int)"):
            with engine.connect() as connection, refused if looking else nullcontext():
                connection.exec_driver_sql(change)
    finally:
        LOOKING.reset(before)

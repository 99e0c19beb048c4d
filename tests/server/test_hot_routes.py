"""Hot routes respond, and write, exactly as MLflow does.

Two servers of ours get the same requests: one with hot routes, and one with too few connections for
them, whose responses are those of MLflow (test_parity.py compares them with stock's).
"""

import asyncio
import base64
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from itertools import count
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import asyncpg
import pg8000.native
import pytest
from hypothesis import given
from starlette.types import Message
from tracking_server.database import address
from tracking_server.database.address import Address
from tracking_server.gate.viewer_policy import LOOKING
from tracking_server.hot_routes.app import HotRoutes
from tracking_server.hot_routes.connections import Connections
from tracking_server.hot_routes.request import MOST_PARAMS, NotHot
from tracking_server.hot_routes.routes import INLINE, Database, _text
from tracking_server.hot_routes.searches import Searches

from fake_google.sql.postgres import Postgres
from tests.server.conftest import (
    DATABASE_PASSWORD,
    DATABASE_USER,
    _google,
    container_environment,
    made_database,
)
from tests.server.hot_requests import (
    DELETED_RUN,
    EXPERIMENT,
    MODEL,
    OTHER_RUN,
    RUN,
    SEQUENCES,
    Request,
    generated,
)
from tests.server.process import HOST, Server, eventually

SEQUENCE_COUNT = 30
"""For `make test`; `make fuzz` sends more."""

CONNECTIONS = 6
RUN_NAME = {"key": "mlflow.runName", "value": "r"}
API = "/api/2.0/mlflow/"
TABLES = {
    "runs": "run_uuid",
    "metrics": "run_uuid",
    "latest_metrics": "run_uuid",
    "params": "run_uuid",
    "tags": "run_uuid",
    "logged_model_metrics": "run_id",
}
"""The tables that hot routes write to, and their columns with the run's id."""
ROWS = """SELECT (to_jsonb(found) - 'experiment_id' - 'deleted_time')::text FROM {table} AS found
  WHERE {run} IN (SELECT run_uuid FROM runs WHERE experiment_id = :id)"""
_numbers = count()


class Side:
    """A server, with the objects that a sequence of requests uses."""

    def __init__(self, server: Server, database: str, postgres: Postgres) -> None:
        self.server, self._database, self._postgres = server, database, postgres
        self.client = server.client(headers={"Host": HOST})
        self._names: dict[str, str] = {}

    def begin(self, name: str) -> None:
        """Create an experiment with a logged model and three runs, and delete one run."""
        made = self._call("experiments/create", name=name)
        self.ids = {"{name}": name, EXPERIMENT: made["experiment_id"]}
        self._names = {made["experiment_id"]: EXPERIMENT}
        for start, placeholder in enumerate((RUN, OTHER_RUN, DELETED_RUN), 1):
            run = self._call(
                "runs/create", experiment_id=made["experiment_id"], run_name="r", start_time=start
            )
            self._learn(run["run"]["info"], placeholder)
        self._call("runs/delete", run_id=self.ids[DELETED_RUN])
        model = self._call("logged-models", experiment_id=made["experiment_id"], name="m")
        self.ids[MODEL] = model["model"]["info"]["model_id"]
        self._names[self.ids[MODEL]] = MODEL

    def send(self, request: Request, nth: int, **options: Any) -> tuple[int, object, object]:
        """Returns the status, the type and the body, with placeholders instead of ids."""
        method, path, fields = request
        given = self._filled(fields)
        if method == "GET":
            sent = {key: "" if value is None else str(value) for key, value in given.items()}
            response = self.client.get(API + path, params=sent, **options)
        else:
            response = self.client.post(
                API + path,
                content=json.dumps(given),
                headers={"Content-Type": "application/json"},
                **options,
            )
        if path == "runs/create" and response.status_code == 200:
            info = response.json()["run"]["info"]
            self._learn(info, f"{{new {nth}}}")
            if info["run_name"] != fields.get("run_name"):  # MLflow has made one up
                self._names[info["run_name"]] = f"{{name {nth}}}"
        text = self.masked(response.text)
        kind = response.headers.get("content-type")
        return response.status_code, kind, (len(text), in_order(text))

    def masked(self, text: str) -> str:
        for found, placeholder in self._names.items():
            if len(found) > 8:
                text = text.replace(found, placeholder)
        text = re.sub(r'("experiment_id": "|mlflow-artifacts:/|id=)[0-9]+', r"\1…", text)
        text = re.sub(r"details of request [0-9a-f]+", "details of request …", text)
        return re.sub(r'("(?:creation|last_update)_time": )[0-9]+', r"\1…", text)

    def tables(self) -> dict[str, list[str]]:
        """Returns all rows of the sequence's runs."""
        [experiment] = (id_ for id_, name in self._names.items() if name == EXPERIMENT)
        with closing(self.connection()) as connection:
            return {
                table: sorted(
                    self.masked(text)
                    for [text] in connection.run(ROWS.format(table=table, run=run), id=experiment)
                )
                for table, run in TABLES.items()
            }

    def connection(self) -> pg8000.native.Connection:
        return pg8000.native.Connection(
            DATABASE_USER,
            password=DATABASE_PASSWORD,
            database=self._database,
            unix_sock=str(self._postgres.socket()),
            ssl_context=False,
        )

    def _call(self, path: str, **fields: object) -> Any:
        response = self.client.post(API + path, json=fields)
        assert response.status_code == 200, response.text
        return response.json()

    def _learn(self, info: Mapping[str, str], placeholder: str) -> None:
        self.ids[placeholder] = info["run_id"]
        self._names[info["run_id"]] = placeholder

    def _filled(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.ids.get(value, value)
        if isinstance(value, list):
            return [self._filled(one) for one in value]
        if isinstance(value, dict):
            return {key: self._filled(one) for key, one in value.items()}
        return value

    def hot_requests(self) -> Counter[str]:
        """Returns how many requests hot routes have handled, by path."""
        entries = self.server.entries()
        return Counter(one["httpRequest"]["requestUrl"] for one in entries if one.get("hot"))


def in_order(text: str) -> object:
    """Returns a JSON text with the metrics, parameters and tags of each run sorted.

    MLflow selects them without an order, so PostgreSQL may return them in any.
    """
    try:
        body = json.loads(text)
    except ValueError:
        return text
    if isinstance(body, dict):
        for run in (*body.get("runs", ()), body.get("run", {})):
            for entries in run.get("data", {}).values():
                entries.sort(key=lambda entry: str(entry["key"]))
    return body


@pytest.fixture(scope="module")
def sides(
    tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, cloudsql_root: Path
) -> Iterator[tuple[Side, Side]]:
    """The server with hot routes, and the one without."""
    folder = tmp_path_factory.mktemp("hot")
    servers = {}
    for database, connections in (("hot", CONNECTIONS), ("not_hot", 4)):
        url = made_database(postgres, database)
        environment = container_environment(_google, url, cloudsql_root)
        environment["MLFLOW_SQLALCHEMYSTORE_POOL_SIZE"] = str(connections)
        # Some messages contain a set, whose order is the same in forks of one process.
        servers[database] = Server(environment, folder, forked=True)
    try:
        hot, not_hot = (
            Side(server.ready(), database, postgres) for database, server in servers.items()
        )
        # The first request opens the connections.
        while not hot.hot_requests():
            hot.client.get(API + "experiments/get", params={"experiment_id": "0"})
        yield hot, not_hot
    finally:
        for server in servers.values():
            server.stop()


def compare(sides: tuple[Side, Side], sequence: list[Request]) -> None:
    """Send a sequence to both servers, and compare the responses and every table."""
    name = f"experiment {next(_numbers)}"
    for side in sides:
        side.begin(name)
    with ThreadPoolExecutor(2) as threads:
        for nth, request in enumerate(sequence):
            hot, not_hot = threads.map(partial(Side.send, request=request, nth=nth), sides)
            assert hot == not_hot, request
    hot_tables, other_tables = (side.tables() for side in sides)
    assert hot_tables == other_tables


@generated(SEQUENCE_COUNT)
@given(sequence=SEQUENCES)
def test_every_sequence_has_the_same_effects(
    sides: tuple[Side, Side], sequence: list[Request]
) -> None:
    compare(sides, sequence)


def ordinary(nth: int) -> list[Request]:
    """Returns one ordinary request for each hot route."""
    metric = {"key": "a", "value": 0.5, "timestamp": nth + 1, "step": nth}
    pair = {"key": f"k{nth}", "value": "ü"}
    return [
        ("POST", "runs/log-metric", {"run_id": RUN, "run_uuid": RUN, **metric}),
        ("POST", "runs/log-parameter", {"run_id": RUN, **pair}),
        ("POST", "runs/set-tag", {"run_id": RUN, **pair}),
        (
            "POST",
            "runs/log-batch",
            {"run_id": RUN, "metrics": [metric, {**metric, "value": "NaN"}], "tags": [pair]},
        ),
        ("POST", "runs/log-metric", {"run_id": RUN, **metric, "key": "m", "model_id": MODEL}),
        (
            "POST",
            "runs/create",
            {"experiment_id": EXPERIMENT, "user_id": "u", "run_name": "n", "start_time": nth + 9},
        ),
        ("POST", "runs/update", {"run_id": OTHER_RUN, "status": "FINISHED", "end_time": 5}),
        ("GET", "runs/get", {"run_id": RUN}),
        ("POST", "runs/search", {"experiment_ids": [EXPERIMENT], "filter": "metrics.a > 0"}),
        ("GET", "metrics/get-history", {"run_id": RUN, "metric_key": "a", "max_results": 5}),
        ("GET", "experiments/get", {"experiment_id": EXPERIMENT}),
        ("GET", "experiments/get-by-name", {"experiment_name": "{name}"}),
    ]


def test_hot_routes_handle_ordinary_requests(sides: tuple[Side, Side]) -> None:
    before = sides[0].hot_requests()
    compare(sides, ordinary(0))
    handled = sides[0].hot_requests() - before
    assert handled.keys() >= {API + path for _, path, _ in ordinary(0)}
    assert not sides[1].hot_requests()


@pytest.mark.parametrize("given", [{}, {"run_name": ""}, {"tags": [RUN_NAME]}], ids=str)
def test_a_run_without_a_name_gets_one(sides: tuple[Side, Side], given: dict[str, Any]) -> None:
    fields = {"experiment_id": EXPERIMENT, **given}
    before = sides[0].hot_requests()
    compare(sides, [("POST", "runs/create", fields)])
    # The sequence itself begins with three runs.
    assert sides[0].hot_requests() - before == {API + "runs/create": 4}


@pytest.mark.parametrize(
    ("metric", "hot"),
    [
        ({"run_id": RUN}, 2),
        # A model has each metric once, so MLflow handles the second batch.
        ({"run_id": RUN, "model_id": MODEL}, 1),
        ({"run_id": OTHER_RUN}, 0),
        ({"model_id": "m-" + "0" * 32}, 0),
        ({"model_id": MODEL, "dataset_name": "d", "dataset_digest": "1"}, 1),
        ({"dataset_name": "d", "dataset_digest": "1"}, 2),
        ({"model_id": MODEL, "dataset_name": "d"}, 0),
        ({"model_id": MODEL, "dataset_name": "", "dataset_digest": ""}, 0),
    ],
    ids=str,
)
def test_metrics_name_their_run_and_model(
    sides: tuple[Side, Side], metric: dict[str, str], hot: int
) -> None:
    metrics = [
        {"key": key, "value": value, "timestamp": 1, "step": 2, **metric}
        for key, value in (("a", 0.5), ("b", "NaN"), ("c", "Infinity"))
    ]
    batch = ("POST", "runs/log-batch", {"run_id": RUN, "metrics": metrics})
    before = sides[0].hot_requests()
    compare(sides, [batch, batch])
    assert (sides[0].hot_requests() - before)[API + "runs/log-batch"] == hot


def token(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "request_",
    [
        ("POST", "runs/search", {"page_token": 0, "experiment_ids": [EXPERIMENT]}),
        ("POST", "runs/search", {"page_token": token('{"offset": 0}')}),
        ("POST", "runs/search", {"page_token": token('{"offset": 01}')}),
        (
            "POST",
            "runs/search",
            {"experiment_ids": [EXPERIMENT], "run_view_type": "deleted_only"},
        ),
        ("GET", "metrics/get-history", {"run_id": RUN, "metric_key": "", "max_results": 5}),
        *(
            (
                "POST",
                "runs/log-metric",
                {"run_id": RUN, "key": "a", "value": value, "timestamp": 1},
            )
            for value in (math.nan, math.inf, -math.inf)
        ),
        (
            "POST",
            "runs/log-batch",
            {"run_id": RUN, "metrics": [{"key": "a", "value": math.inf, "timestamp": 1}]},
        ),
    ],
)
def test_unusual_requests_have_the_same_effects(
    sides: tuple[Side, Side], request_: Request
) -> None:
    compare(sides, [request_])


@pytest.mark.parametrize(
    "header",
    [
        {"Content-Type": "application/jsonx"},
        {"Content-Type": "Application/JSON"},
        {"Content-Type": "application/json; charset=utf-8"},
        {"X-MLflow-Workspace": "default"},
    ],
)
def test_headers_have_the_same_effects(sides: tuple[Side, Side], header: dict[str, str]) -> None:
    name = f"experiment {next(_numbers)}"
    found = []
    for side in sides:
        side.begin(name)
        response = side.client.post(
            API + "runs/set-tag",
            content=json.dumps({"run_id": side.ids[RUN], "key": "k", "value": "v"}),
            headers={"Content-Type": "application/json", **header},
        )
        found.append((response.status_code, side.masked(response.text), side.tables()))
    assert found[0] == found[1]


def test_a_page_of_the_same_origin_gets_the_same_headers(sides: tuple[Side, Side]) -> None:
    for side in sides:
        side.begin(f"experiment {next(_numbers)}")
    found = []
    for side in sides:
        for origin in (f"https://{HOST}", "https://elsewhere.example"):
            response = side.client.get(
                API + "experiments/get", params={"experiment_id": "0"}, headers={"Origin": origin}
            )
            headers = {name: value for name, value in response.headers.items() if name != "date"}
            found.append((response.status_code, headers))
    assert found[:2] == found[2:]


def test_linked_datasets_and_models_are_in_the_response(sides: tuple[Side, Side]) -> None:
    dataset = {"name": "d", "digest": "1", "source_type": "local", "source": "s", "schema": "{}"}
    linked: list[Request] = [
        (
            "POST",
            "runs/log-inputs",
            {
                "run_id": RUN,
                "datasets": [{"dataset": dataset, "tags": [{"key": "t", "value": "v"}]}],
                "models": [{"model_id": "m-1"}],
            },
        ),
        ("POST", "runs/outputs", {"run_id": RUN, "models": [{"model_id": "m-2", "step": 3}]}),
    ]
    before = sides[0].hot_requests()
    compare(sides, [*linked, *ordinary(1)])
    assert (sides[0].hot_requests() - before)[API + "runs/get"] == 1


def test_a_large_run_is_left_to_mlflow(sides: tuple[Side, Side]) -> None:
    params = [
        {"key": f"p{number}", "value": chr(0x4E00 + number) * 6000} for number in range(MOST_PARAMS)
    ]
    logged: Request = ("POST", "runs/log-batch", {"run_id": RUN, "params": params})
    before = sides[0].hot_requests()
    read: list[Request] = [
        ("GET", "runs/get", {"run_id": RUN}),
        ("POST", "runs/search", {"experiment_ids": [EXPERIMENT]}),
    ]
    compare(sides, [logged, *read])
    handled = sides[0].hot_requests() - before
    assert API + "runs/get" not in handled
    assert API + "runs/search" not in handled


@pytest.mark.parametrize(
    "statement",
    [
        """INSERT INTO params (key, value, run_uuid)
          SELECT 'p' || n, '', :run FROM generate_series(1, 25000) AS n""",
        """INSERT INTO tags (key, value, run_uuid)
          SELECT 't' || n, '', :run FROM generate_series(1, 25000) AS n""",
        """INSERT INTO inputs (input_uuid, source_type, source_id, destination_type,
            destination_id, step)
          SELECT n || left(:run, 20), 'RUN_OUTPUT', :run, 'MODEL_OUTPUT', 'm-' || n, n
          FROM generate_series(1, 1001) AS n""",
        """WITH dataset AS (
            INSERT INTO datasets (dataset_uuid, experiment_id, name, digest,
              dataset_source_type, dataset_source)
            VALUES (left(:run, 30), 0, :run, 'd', 'local', 's') RETURNING dataset_uuid),
          input AS (
            INSERT INTO inputs (input_uuid, source_type, source_id, destination_type,
              destination_id)
            SELECT left(:run, 20), 'DATASET', dataset_uuid, 'RUN', :run FROM dataset
            RETURNING input_uuid)
          INSERT INTO input_tags (input_uuid, name, value)
          SELECT input_uuid, 't' || n, '' FROM input, generate_series(1, 1001) AS n""",
    ],
    ids=["params", "tags", "models", "datasets"],
)
def test_a_run_with_many_entries_is_left_to_mlflow(
    sides: tuple[Side, Side], statement: str
) -> None:
    hot, _ = sides
    hot.begin(f"experiment {next(_numbers)}")
    with closing(hot.connection()) as connection:
        connection.run(statement, run=hot.ids[RUN])
    before = hot.hot_requests()
    assert hot.send(("GET", "runs/get", {"run_id": RUN}), 0)[0] == 200
    assert API + "runs/get" not in hot.hot_requests() - before


def test_a_long_filter_is_left_to_mlflow(sides: tuple[Side, Side]) -> None:
    filter_text = f"attributes.run_id IN ({', '.join(['0'] * 100)})".replace("0", "'0'")
    before = sides[0].hot_requests()
    compare(
        sides, [("POST", "runs/search", {"experiment_ids": [EXPERIMENT], "filter": filter_text})]
    )
    assert API + "runs/search" not in sides[0].hot_requests() - before


def test_concurrent_writers_keep_the_latest_value(sides: tuple[Side, Side]) -> None:
    hot, _ = sides
    hot.begin(f"experiment {next(_numbers)}")

    def log(step: int) -> int:
        metric = {"key": "loss", "value": step / 8, "timestamp": 1, "step": step}
        body = {"run_id": RUN, "metrics": [metric]} if step % 2 else {"run_id": RUN, **metric}
        path = "runs/log-batch" if step % 2 else "runs/log-metric"
        status, _, _ = hot.send(("POST", path, body), step)
        return status

    steps = sorted(range(64), key=lambda step: step * 37 % 64)
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(log, steps)) == {200}
    tables = hot.tables()
    assert len(tables["metrics"]) == len(steps)
    assert [json.loads(row)["step"] for row in tables["latest_metrics"]] == [63]


def test_mlflow_takes_over_while_connections_are_lost(sides: tuple[Side, Side]) -> None:
    hot, _ = sides
    hot.begin(f"experiment {next(_numbers)}")
    with closing(hot.connection()) as connection:
        connection.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        before = hot.hot_requests()
        for request in ordinary(3):
            assert hot.send(request, 3)[0] == 200
        assert eventually(
            lambda: hot.send(ordinary(3)[0], 3)[0] == 200 and bool(hot.hot_requests() - before)
        )
        [[open_ones]] = connection.run(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert open_ones <= CONNECTIONS


def test_a_slow_search_is_left_to_mlflow() -> None:
    searches = Searches(lambda *_: ("SELECT 1", (("limit", 0), ("experiment_ids", []))))
    slow = searches.search("a", [], "ALL")
    assert slow.values(limit=5, experiment_ids=[1]) == [5, [1]]
    searches.leave_to_mlflow(slow)
    with pytest.raises(NotHot):
        searches.search("a", [], "ALL")


def test_a_long_response_is_written_in_a_thread() -> None:
    written_in = []

    def write(text: str) -> str:
        written_in.append(current_thread() is main_thread())
        return text

    for size in (INLINE, INLINE + 1):
        assert asyncio.run(_text(size, write, "x")) == "x"
    assert written_in == [True, False]


def test_a_viewers_statements_are_read_only(database_url: str, cloudsql_root: Path) -> None:
    database = address.parse(database_url).at_root(str(cloudsql_root))
    connections = Connections(database, count=2)

    async def write_as_both() -> None:
        while True:
            with suppress(NotHot):
                await connections.fetch("CREATE TABLE written (a int)")
                break
            await asyncio.sleep(0.05)
        LOOKING.set(True)
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await connections.fetch("INSERT INTO written VALUES (1)")
        assert await connections.fetch("SELECT * FROM written") == []
        await connections.close()

    asyncio.run(write_as_both())


@pytest.mark.parametrize("cancelled", ["while it waits", "when it is given one"])
def test_a_cancelled_request_leaves_the_connection_to_the_next(
    monkeypatch: pytest.MonkeyPatch, cancelled: str
) -> None:
    class Connection:
        async def fetch(self, *_: object) -> list[object]:
            await released.wait()
            return []

        def is_closed(self) -> bool:
            return False

    async def take_turns() -> None:
        connections = Connections(Address(username="u", password="p", database="d"), count=1)
        await connections._open_all()
        first, second, third = [asyncio.create_task(connections.fetch("")) for _ in range(3)]
        await asyncio.sleep(0)
        assert len(connections._waiting) == 2
        if cancelled == "while it waits":
            second.cancel()
        released.set()
        await asyncio.sleep(0)
        if cancelled == "when it is given one":
            assert len(connections._waiting) == 1
            second.cancel()
        assert await asyncio.wait_for(asyncio.gather(first, third), 10) == [[], []]
        assert second.cancelled()

    async def connect(_: Connections) -> Connection:
        return Connection()

    monkeypatch.setattr(Connections, "_connect", connect)
    released = asyncio.Event()
    asyncio.run(take_turns())


def test_a_run_is_not_created_twice() -> None:
    """MLflow would create another one if it handled the request too."""
    asked = []

    class Lost:
        async def fetch(self, *_: object) -> None:
            raise asyncpg.ConnectionDoesNotExistError("connection was closed")

        open = close = fetch

    async def mlflow(*_: object) -> None:
        asked.append("MLflow")

    async def receive() -> Message:
        fields = {"experiment_id": "0", "user_id": "", "run_name": "r", "start_time": 1}
        return {"type": "http.request", "body": json.dumps(fields).encode()}

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    for path in ("runs/create", "runs/get"):
        database = Database(Lost())  # type: ignore[arg-type]
        routes = HotRoutes(mlflow, database, lambda *_: ())
        scope = {
            "type": "http",
            "path": API + path,
            "method": "POST" if path == "runs/create" else "GET",
            "query_string": b"run_id=a",
            "headers": [(b"content-type", b"application/json")],
        }
        asyncio.run(routes(scope, receive, send))
    assert asked == ["MLflow"]
    assert sent[0]["status"] == 503

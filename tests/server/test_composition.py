"""What is put around MLflow changes none of its answers: stock's app and ours side by side."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy.engine import make_url
from starlette.routing import Mount, Route
from tracking_server import database, mlflow_internals, schema
from tracking_server.composition import Composition
from tracking_server.wsgi import FlaskThreads

from tests.server.process import HOST
from tests.server.test_routes import every_route

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def both(
    database_url: str, cloudsql_root: object, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """Clients of stock's app and of the composition, on one database."""
    database.connect_with(make_url(database_url), pool_size=4, cloudsql_root=str(cloudsql_root))
    schema.ensure(database.single_connection_engine(), deadline=5)
    mlflow_internals.configure_stores(
        artifact_root="mlflow-artifacts:/",
        artifact_destination="/tmp/mlflow-gcp-nowhere",
        kek_passphrase="k",
    )
    fastapi, flask = mlflow_internals.import_app()
    composed = Composition(
        fastapi=fastapi, routes=fastapi.routes, flask=FlaskThreads(flask, threads=4)
    )
    base = f"https://{HOST}"
    async with (
        httpx.AsyncClient(
            transport=httpx.ASGITransport(fastapi, raise_app_exceptions=False), base_url=base
        ) as stock,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(composed, raise_app_exceptions=False), base_url=base
        ) as ours,
    ):
        yield stock, ours
    database.close_pool()


def shape(value: Any) -> Any:
    """JSON with its values left out, which differ with time and chance."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return type(value).__name__


def comparable(answer: httpx.Response) -> tuple[int, str, Any]:
    kind = answer.headers.get("content-type", "").split(";")[0]
    if kind == "application/json" and answer.content:
        return answer.status_code, kind, shape(json.loads(answer.text))
    return answer.status_code, kind, answer.text


CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/", {}),
    ("GET", "/version", {}),
    ("GET", "/health", {}),
    ("HEAD", "/version", {}),
    ("GET", "/nowhere", {}),
    ("GET", "/api/2.0/mlflow/experiments/search", {"params": {"max_results": 5}}),
    ("POST", "/api/2.0/mlflow/experiments/search", {"json": {"max_results": 5}}),
    ("POST", "/ajax-api/2.0/mlflow/runs/search", {"json": {"experiment_ids": ["0"]}}),
    ("POST", "/api/2.0/mlflow/runs/create", {"json": {"experiment_id": "0", "start_time": 1}}),
    ("POST", "/api/2.0/mlflow/runs/create", {"content": b"{", "headers": {"x": "y"}}),
    ("GET", "/api/2.0/mlflow/runs/get", {"params": {"run_id": "missing"}}),
    ("GET", "/api/2.0/mlflow/registered-models/search", {}),
    ("POST", "/api/3.0/mlflow/traces/search", {"json": {"locations": []}}),
    ("GET", "/api/3.0/mlflow/server-info", {}),
    ("GET", "/ajax-api/3.0/mlflow/server-info", {}),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts", {"params": {"path": "0"}}),
    ("GET", "/static-files/static/js/nowhere.js", {}),
    ("POST", "/v1/traces", {"content": b"", "headers": {"x-mlflow-experiment-id": "0"}}),
    ("GET", "/ajax-api/3.0/mlflow/assistant/config", {}),
    ("GET", "/ajax-api/3.0/mlflow/mcp-servers", {}),
    ("DELETE", "/version", {}),
    ("OPTIONS", "/api/2.0/mlflow/runs/search", {}),
]


# Fills the database with examples for most of a minute.
DEMO = "/ajax-api/3.0/mlflow/demo/generate"


async def test_every_route_answers_as_stock_does(
    both: tuple[httpx.AsyncClient, httpx.AsyncClient],
) -> None:
    stock, ours = both
    calls = CALLS + [(method, path, {}) for method, path in every_route() if path != DEMO]
    assert len(calls) > 400
    different = []
    for method, path, options in calls:
        theirs = comparable(await stock.request(method, path, **options))
        if (found := comparable(await ours.request(method, path, **options))) != theirs:
            different.append((method, path, theirs, found))
    assert different == []


async def test_a_request_is_flasks_exactly_where_the_mount_takes_it() -> None:
    """Asked of every route, against the routing that stock's app does itself."""
    fastapi, _ = mlflow_internals.import_app()
    reached: list[str] = []

    async def half(name: str, scope: Any) -> None:
        reached.append(name)

    composed = Composition(
        fastapi=lambda scope, receive, send: half("native", scope),
        routes=fastapi.routes,
        flask=lambda scope, receive, send: half("flask", scope),
    )
    for method, path in every_route():
        scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": []}
        await composed(dict(scope), None, None)  # type: ignore[arg-type]
        matched = [r for r in fastapi.routes if r.matches(dict(scope))[0].name == "FULL"]
        expected = "flask" if matched and isinstance(matched[0], Mount) else "native"
        assert reached.pop() == expected, (method, path)


async def test_an_app_without_the_mount_is_refused() -> None:
    fastapi, _ = mlflow_internals.import_app()
    for routes in (fastapi.routes[:-1], [*fastapi.routes, Route("/late", lambda request: None)]):
        with pytest.raises(RuntimeError, match="no longer mounts Flask"):
            Composition(fastapi=fastapi, routes=list(routes), flask=fastapi)


@pytest.mark.parametrize("chunks", [[], [b""], [b"one"], [b"one", b"two"], [b"x"] * 100])
async def test_a_wsgi_answer_of_any_number_of_chunks(chunks: list[bytes]) -> None:
    closed: list[bool] = []

    class Chunks:
        def __iter__(self) -> Iterator[bytes]:
            return iter(chunks)

        def close(self) -> None:
            closed.append(True)

    def app(environ: Any, start_response: Any) -> Any:
        assert environ["wsgi.input"].read() == b"a body"
        start_response("201 Created", [("X-Ü".encode().decode("latin-1"), "ü")])
        return Chunks()

    parts = [
        {"type": "http.request", "body": b"a ", "more_body": True},
        {"type": "http.request", "body": b"body", "more_body": False},
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return parts.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "http_version": "1.1", "method": "POST", "path": "/", "root_path": "",
        "query_string": b"", "headers": [], "server": ("127.0.0.1", 1), "client": None,
        "scheme": "http",
    }  # fmt: skip
    await FlaskThreads(app, threads=1)(scope, receive, send)
    assert sent[0]["status"] == 201
    assert b"".join(message["body"] for message in sent[1:]) == b"".join(chunks)
    assert [message["more_body"] for message in sent[1:]][-1] is False
    assert closed == [True]

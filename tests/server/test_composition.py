"""Our composition responds like MLflow's stock app, tested next to each other."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from wsgiref.types import WSGIApplication

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from tracking_server.boot import schema
from tracking_server.database import address, engines
from tracking_server.gate.viewer_policy import LOOKING
from tracking_server.mlflow import internals
from tracking_server.mlflow.routing import VIEWERS, Composition
from tracking_server.mlflow.wsgi import FlaskThreads

from tests.server.exchange import Exchange
from tests.server.flask_app import import_flask
from tests.server.process import HOST
from tests.server.test_routes import every_route


def no_problem(_: bytes) -> str:
    return ""


def threads_of(app: WSGIApplication, *, threads: int) -> FlaskThreads:
    return FlaskThreads(app, threads=threads, viewers_threads=1, cut=lambda _: None)


pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def both(
    database_url: str, cloudsql_root: object, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """Yield clients of stock's app and of the composition, on one database."""
    engines.connect_with(address.parse(database_url).at_root(str(cloudsql_root)), pool_size=4)
    schema.ensure(engines.single_connection_engine(), deadline=5)
    internals.configure_stores(
        artifact_root="mlflow-artifacts:/",
        artifact_destination="/tmp/mlflow-gcp-nowhere",
        kek_passphrase="k",
        kek_version=1,
    )
    fastapi, flask = internals.import_fastapi(), import_flask()
    composed = Composition(
        flask=threads_of(flask, threads=4),
        has_flask_route=flask.url_map.bind("").test,
        import_native=lambda: fastapi,
        native_problem=no_problem,
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
    engines.close_pool()


def shape(value: Any) -> Any:
    """Returns JSON without its values, which vary with time and random ids."""
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


# Filling the database with examples takes most of a minute.
DEMO = "/ajax-api/3.0/mlflow/demo/generate"


async def test_every_route_responds_like_stock(
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
    assert {(method, path) for method, path, *_ in different} <= NOT_THE_SAME, different


# Routes that both halves have. Stock uses FastAPI's. Flask's, for MLflow without FastAPI, have the
# same function, except for the content type of /health. `transfers` handles artifacts before either
# half does.
TWICE = {
    ("GET", "/health"),
    ("GET", "/api/3.0/mlflow/server-info"),
    ("GET", "/ajax-api/3.0/mlflow/server-info"),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts/x"),
    ("GET", "/ajax-api/2.0/mlflow-artifacts/artifacts/x"),
    ("PUT", "/api/2.0/mlflow-artifacts/artifacts/x"),
    ("PUT", "/ajax-api/2.0/mlflow-artifacts/artifacts/x"),
}


NOT_THE_SAME = {route for route in TWICE if not route[1].endswith("server-info")}


async def test_a_request_goes_to_flask_exactly_where_stock_mounts_it() -> None:
    """Compares every route with the routing of stock's app."""
    fastapi, flask = internals.import_fastapi(), import_flask()
    composed, reached = halves(fastapi, flask.url_map.bind("").test)
    twice = set()
    for method, path in [*every_route(), ("GET", "/nowhere"), ("PATCH", "/version"), ("GET", "*")]:
        scope = request(method, path)
        await composed(dict(scope), None, None)  # type: ignore[arg-type]
        matched = [r for r in fastapi.routes if r.matches(dict(scope))[0].name == "FULL"]
        expected = "flask" if matched and isinstance(matched[0], Mount) else "native"
        if (found := reached.pop()) != expected and path:
            twice.add((method, path))
            assert found == "flask"
    assert twice == TWICE


async def test_flask_routes_respond_without_importing_fastapi() -> None:
    imported: list[str] = []

    def import_native() -> Any:
        imported.append("native")
        return internals.import_fastapi()

    flask = import_flask()
    composed, reached = halves(import_native, flask.url_map.bind("").test)
    for path in ("/", "/version", "/api/2.0/mlflow/runs/get", "/api/3.0/mlflow/server-info"):
        await composed(request("GET", path), None, None)  # type: ignore[arg-type]
    assert (set(reached), imported) == ({"flask"}, [])
    # Imported once, even if several requests need it at the same time.
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(composed, request("POST", "/v1/traces"), None, None)
    assert (reached[-20:], imported) == (["native"] * 20, ["native"])


async def test_the_lifespan_of_fastapi_begins_at_its_import() -> None:
    states: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        states.append("began")
        yield
        states.append("ended")

    mount = Mount("/", routes=[])
    composed, _ = halves(lambda: Starlette(routes=[mount], lifespan=lifespan), lambda *_: False)
    assert states == []
    await composed(request("GET", "*"), None, None)  # type: ignore[arg-type]
    assert states == ["began"]
    await composed.close()
    assert states == ["began", "ended"]


async def test_an_app_without_the_mount_is_refused() -> None:
    fastapi = internals.import_fastapi()
    for routes in (fastapi.routes[:-1], [*fastapi.routes, Route("/late", lambda request: None)]):
        composed, _ = halves(lambda: Starlette(routes=list(routes)), lambda *_: False)  # noqa: B023
        with pytest.raises(RuntimeError, match="no longer mounts Flask"):
            await composed(request("GET", "/nowhere"), None, None)  # type: ignore[arg-type]


def request(method: str, path: str) -> dict[str, Any]:
    return {"type": "http", "method": method, "path": path, "root_path": "", "headers": []}


def halves(native: Any, has_flask_route: Any) -> tuple[Composition, list[str]]:
    """Returns a composition without responses, and the list of the halves that it called."""
    reached: list[str] = []

    class Native(Starlette):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            reached.append("native")

    def import_native() -> Starlette:
        app = native if isinstance(native, Starlette) else native()
        return Native(routes=app.routes, lifespan=app.router.lifespan_context)

    async def flask(scope: Any, receive: Any, send: Any) -> None:
        reached.append("flask")

    composed = Composition(
        flask=flask,
        has_flask_route=has_flask_route,
        import_native=import_native,
        native_problem=no_problem,
    )
    return composed, reached


@pytest.mark.parametrize("chunks", [[], [b""], [b"one"], [b"one", b"two"], [b"x"] * 100])
async def test_a_wsgi_response_can_have_any_number_of_chunks(chunks: list[bytes]) -> None:
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
    await threads_of(app, threads=1)(scope, receive, send)
    assert sent[0]["status"] == 201
    assert b"".join(message["body"] for message in sent[1:]) == b"".join(chunks)
    assert [message["more_body"] for message in sent[1:]][-1] is False
    assert closed == [True]


async def test_the_native_half_has_limits() -> None:
    """They apply to queries, and to the viewer's requests in its threads."""
    arrived, go_on, at_work = asyncio.Semaphore(0), asyncio.Event(), 0

    async def work(_: Request) -> Response:
        nonlocal at_work
        at_work += 1
        arrived.release()
        await go_on.wait()
        at_work -= 1
        return Response("done")

    composed = Composition(
        flask=Response("flask"),
        has_flask_route=lambda *_: False,
        import_native=lambda: Starlette(routes=[Route("/work", work), Mount("/", Starlette())]),
        native_problem=lambda query: "too much" if query == b"x=9" else "",
    )
    refused = await Exchange(composed, "GET", "/work", query="x=9").done()
    assert (refused.status, b"too much" in refused.body) == (400, True)
    LOOKING.set(True)
    viewers = [Exchange(composed, "GET", "/work") for _ in range(VIEWERS + 5)]
    async with asyncio.timeout(10):
        for _ in range(VIEWERS):
            await arrived.acquire()
    LOOKING.set(False)
    user = Exchange(composed, "GET", "/work")
    async with asyncio.timeout(10):
        await arrived.acquire()
    assert at_work == VIEWERS + 1
    go_on.set()
    for exchange in (user, *viewers):
        assert (await exchange.done()).status == 200

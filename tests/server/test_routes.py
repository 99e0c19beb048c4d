"""Every route that stock MLflow serves is behind the gate, as the app itself lists them."""

import base64
from collections.abc import AsyncIterator
from itertools import count

import httpx
import pytest
from starlette.types import ASGIApp
from tracking_server.gate.callbacks import Callbacks
from tracking_server.gate.credentials import Credentials
from tracking_server.gate.gate import Gate
from tracking_server.mlflow import internals

from tests.server.parity import routes as parity
from tests.server.process import HOST

Route = tuple[str, str]


@pytest.fixture(scope="module")
def app() -> ASGIApp:
    return internals.import_fastapi()


@pytest.fixture(scope="module")
def routes(app: ASGIApp) -> list[Route]:
    return every_route()


def every_route() -> list[Route]:
    """Returns method and path of every route, native and Flask's, with its parameters filled in."""
    return sorted({(route.method, route.path) for route in parity.every_route()})


@pytest.fixture
async def client(app: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    # An hour between failed logins, so that no login has to wait.
    hours = count(0, 3600)
    gate = Gate(
        app,
        user=Credentials("u", "p"),
        hosts=[HOST],
        callbacks=Callbacks(port=1),
        clock=lambda: next(hours),
    )
    transport = httpx.ASGITransport(gate)
    async with httpx.AsyncClient(transport=transport, base_url=f"https://{HOST}") as client:
        yield client


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_the_list_has_every_part_of_the_server(routes: list[Route]) -> None:
    paths = {path for _, path in routes}
    assert len(paths) > 200
    for part in (
        "/",
        "/health",
        "/version",
        "/api/2.0/mlflow/runs/create",
        "/ajax-api/2.0/mlflow/runs/search",
        "/api/2.0/mlflow-artifacts/artifacts/x",
        "/get-artifact",
        "/v1/traces",
        "/gateway/x/mlflow/invocations",
        "/ajax-api/3.0/mlflow/assistant/config",
        "/ajax-api/3.0/jobs/x",
        "/api/3.0/mlflow/mcp-servers",
        "/ajax-api/3.0/mlflow/mcp-servers/x/versions/x/tags/x",
        "/api/3.0/mlflow/server-info",
        "/static-files/x",
    ):
        assert part in paths, part


@pytest.mark.anyio
async def test_every_route_requires_credentials(
    client: httpx.AsyncClient, routes: list[Route]
) -> None:
    wrong = "Basic " + base64.b64encode(b"u:wrong").decode()
    for method, path in routes:
        if path == "/health" and method in {"GET", "HEAD"}:
            continue
        for headers in ({}, {"Authorization": wrong}):
            answer = await client.request(method, path, headers=headers)
            assert answer.status_code == 401, (method, path)
            assert answer.headers["www-authenticate"].startswith("Basic")


@pytest.mark.anyio
async def test_every_route_refuses_other_sites(
    client: httpx.AsyncClient, routes: list[Route]
) -> None:
    for method, path in routes:
        if path == "/health" and method in {"GET", "HEAD"}:
            continue
        for headers in (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"},
        ):
            answer = await client.request(method, path, headers=headers, auth=("u", "p"))
            assert answer.status_code == 403, (method, path, headers)


@pytest.mark.anyio
async def test_the_gate_lets_the_page_through(client: httpx.AsyncClient) -> None:
    page = await client.get("/", auth=("u", "p"))
    assert (page.status_code, "<title>MLflow</title>" in page.text) == (200, True)
    health = await client.get("/health")
    assert (health.status_code, health.text) == (200, "OK")


@pytest.mark.anyio
async def test_mlflow_adds_its_security_headers(client: httpx.AsyncClient) -> None:
    for auth in (None, ("u", "p")):
        answer = await client.get("/version", auth=auth)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "SAMEORIGIN"

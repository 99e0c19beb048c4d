"""Every route of MLflow responds as stock MLflow does to the same request.

Stock is `mlflow server` of the same lock, with the driver that MLflow's users have. Intended
differences are listed in parity/differences.py; the calls are in parity/calls.
"""

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import httpx
import pytest

from fake_google.sql.postgres import Postgres
from tests.server.conftest import made_database, made_for_stock
from tests.server.parity.answer import Answer, shape
from tests.server.parity.call import Call
from tests.server.parity.calls import SEQUENCE, cold
from tests.server.parity.differences import Found, obsolete, unexplained
from tests.server.parity.routes import Router, every_route
from tests.server.parity.servers import Stock, our_environment, ours, upstream
from tests.server.parity.walk import Step, walk
from tests.server.process import BOOT_SECONDS, Server

PREFIXES = {"/api/": "0a01", "/ajax-api/": "0a02"}
"""Most routes are under both prefixes; each has a separate mark, used in the names of objects."""

# Without a body, it fills the database with examples for most of a minute.
DEMO = "/ajax-api/3.0/mlflow/demo/generate"
IMPORTED_LATE = ("aiohttp", "pandas")
"""Objects that only some of the first calls need: the gateway, and a run of the prompt lab."""

ON_ITS_OWN = {"HEAD", "OPTIONS"}
"""Methods that Flask adds to each route."""


def under(prefix: str, calls: list[Call]) -> list[Call]:
    return [
        replace(call, path=prefix + call.path.removeprefix("/api/"))
        if call.path.startswith("/api/")
        else call
        for call in calls
    ]


def bare_calls() -> list[Call]:
    """Returns an empty request for each route, for objects that don't exist."""
    return [
        Call(
            method=route.method,
            path=route.path,
            json={} if route.method in {"POST", "PUT", "PATCH", "DELETE"} else None,
        )
        for route in every_route()
        if route.template != DEMO
    ]


def test_every_route_has_a_call() -> None:
    router = Router()
    reached = router.reached(
        (call.method, call.path) for prefix in PREFIXES for call in under(prefix, SEQUENCE)
    )
    forgotten = [
        str(route)
        for route in every_route()
        if route not in reached
        and route.method not in ON_ITS_OWN
        and router.route(route.method, route.path) == route
    ]
    assert forgotten == [], "add a call for each to tests/server/parity/calls"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parity")


@pytest.fixture(scope="module")
def environment(folder: Path, postgres: Postgres, cloudsql_root: Path) -> Iterator[dict[str, str]]:
    made = folder / "ours"
    made.mkdir()
    url = made_database(postgres, "parity_ours")
    with our_environment(made, url, cloudsql_root) as given:
        yield given


def whole_walk(client: httpx.Client, home: str, upstream_url: str) -> list[Step]:
    steps = []
    with client:
        for prefix, mark in PREFIXES.items():
            names = {"mark": mark, "upstream": upstream_url, "home": home}
            steps += walk(client, under(prefix, SEQUENCE), names)
        return steps + walk(client, bare_calls(), {"home": home})


def test_every_response_equals_stocks(
    folder: Path, postgres: Postgres, cloudsql_root: Path, environment: dict[str, str]
) -> None:
    made = folder / "stock"
    made.mkdir()
    stock = Stock(made, made_for_stock(postgres, "parity_stock", cloudsql_root))
    try:
        with upstream() as upstream_url, ours(environment, folder) as server:
            server.ready()
            stock.ready()
            with ThreadPoolExecutor(2) as threads:
                walks = [
                    threads.submit(whole_walk, client, home, upstream_url)
                    for client, home in (
                        (stock.client(), str(made)),
                        (server.client(), str(folder / "ours")),
                    )
                ]
                theirs, found = (each.result() for each in walks)
    finally:
        stock.stop()
    different = [
        Found(str(one.call), line)
        for one, other in zip(theirs, found, strict=True)
        for line in one.answer.differences(other.answer)
    ]
    assert not (new := unexplained(different)), "\n".join(map(str, new))
    assert obsolete(different) == []
    surprises = [
        f"{step.call}: {step.answer.status}, not {step.call.expected}: {step.answer.body!r:.300}"
        for step in theirs[: len(PREFIXES) * len(SEQUENCE)]
        if step.answer.status != step.call.expected
    ]
    assert not surprises, "stock's status is not the expected one:\n" + "\n".join(surprises)


def listening(server: Server) -> Server:
    """Wait until it accepts connections, without sending a request."""
    until = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < until and server.process.poll() is None:
        if server.accepts():
            return server
        time.sleep(0.02)
    raise AssertionError(f"the server does not listen: {server.log()}")


def has_loaded(server: Server, package: str) -> bool:
    """Returns whether a compiled module of the library is loaded in the process, on Linux."""
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    return f"/site-packages/{package}/" in maps


def shapes(steps: list[Step]) -> list[Answer]:
    """Returns the part of a response that doesn't change when the call is repeated."""
    return [replace(step.answer, body=shape(step.answer.body)) for step in steps]


@pytest.mark.parametrize("first", [cold.NATIVE[0], cold.FLASK[0]], ids=str)
def test_any_request_may_be_the_first(
    folder: Path, environment: dict[str, str], first: Call
) -> None:
    """The first request may be to FastAPI's half or to Flask's."""
    calls = [first, *(call for call in reversed(cold.CALLS) if call is not first)]
    with ours(environment, folder) as server, listening(server).client() as client:
        answers = walk(client, calls, {"mark": "0b01"})
        assert [step for step in answers if step.answer.status != step.call.expected] == []
        assert shapes(answers) == shapes(walk(client, calls, {"mark": "0b01"}))


def test_twenty_first_requests_at_once(folder: Path, environment: dict[str, str]) -> None:
    with ours(environment, folder) as server, listening(server).client() as client:
        together = Barrier(len(cold.CALLS))

        def ask(call: Call) -> Step:
            with server.client() as own:
                together.wait(BOOT_SECONDS)
                return walk(own, [call], {"mark": "0b02"})[0]

        assert len(cold.CALLS) == 20
        with ThreadPoolExecutor(len(cold.CALLS)) as threads:
            answers = list(threads.map(ask, cold.CALLS))
        assert [step for step in answers if step.answer.status != step.call.expected] == []
        assert shapes(answers) == shapes(walk(client, cold.CALLS, {"mark": "0b02"}))
        if sys.platform == "linux":
            assert all(has_loaded(server, package) for package in IMPORTED_LATE)

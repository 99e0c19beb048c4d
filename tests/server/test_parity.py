"""Every route of MLflow responds as stock MLflow does to the same request.

Stock is `mlflow server` of the same lock, with the driver that MLflow's users have. Intended
differences are listed in parity/differences.py; the calls are in parity/calls.
"""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from threading import Barrier

import httpx
import pytest

from fake_google.sql.postgres import Postgres
from tests.server.conftest import made_database, made_for_stock
from tests.server.parity.answer import Answer, shape
from tests.server.parity.call import Call
from tests.server.parity.calls import SEQUENCE, WITH_THE_PAGE, cold
from tests.server.parity.differences import Found, obsolete, unexplained
from tests.server.parity.routes import Router, every_route
from tests.server.parity.servers import Stock, our_environment, ours, upstream
from tests.server.parity.walk import Step, walk
from tests.server.process import BOOT_SECONDS, Server

PREFIXES = ("/api/", "/ajax-api/")
"""Most routes are under both."""

Passes = Mapping[str, list[Call]]
"""The calls of each pass, by the mark in the names of the objects that it creates."""

# Without a body, it fills the database with examples for most of a minute.
DEMO = "/ajax-api/3.0/mlflow/demo/generate"
IMPORTED_LATE = ("aiohttp", "pandas")
"""Objects that only some of the first calls need: the gateway, and a run of the prompt lab."""

ON_ITS_OWN = {"HEAD", "OPTIONS"}
"""Methods that Flask adds to each route."""


def with_prefix(call: Call, prefix: str) -> Call:
    if not call.path.startswith("/api/"):
        return call
    return replace(call, path=prefix + call.path.removeprefix("/api/"))


def alternating(calls: Iterable[Call]) -> list[Call]:
    """Returns the calls with the two prefixes in turn; tests/fuzz sends all calls with both."""
    return [with_prefix(call, prefix) for call, prefix in zip(calls, cycle(PREFIXES))]


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


def bare_calls_alternating() -> list[Call]:
    """Returns the bare calls, those of routes under both prefixes with one of them in turn."""
    calls = bare_calls()
    known = {(call.method, call.path) for call in calls}
    twice = [
        call
        for call in calls
        if call.path.startswith("/api/")
        and (call.method, with_prefix(call, "/ajax-api/").path) in known
    ]
    both = {str(with_prefix(call, prefix)) for call in twice for prefix in PREFIXES}
    return [call for call in calls if str(call) not in both] + alternating(twice)


def test_every_route_has_a_call() -> None:
    router = Router()
    reached = router.reached(
        (call.method, with_prefix(call, prefix).path) for prefix in PREFIXES for call in SEQUENCE
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


def whole_walk(
    client: httpx.Client, home: str, upstream_url: str, passes: Passes, bare: list[Call]
) -> list[Step]:
    steps = []
    with client:
        for mark, calls in passes.items():
            steps += walk(client, calls, {"mark": mark, "upstream": upstream_url, "home": home})
        return steps + walk(client, bare, {"home": home})


def compare(
    environment: Mapping[str, str], stock: Stock, folder: Path, passes: Passes, bare: list[Call]
) -> None:
    """Send the calls to both servers, and compare the responses."""
    with upstream() as upstream_url, ours(environment, folder) as server:
        server.ready()
        stock.ready()
        with ThreadPoolExecutor(2) as threads:
            walks = [
                threads.submit(whole_walk, client, str(folder / home), upstream_url, passes, bare)
                for client, home in ((stock.client(), "stock"), (server.client(), "ours"))
            ]
            theirs, found = (each.result() for each in walks)
    different = [
        Found(str(one.call), line)
        for one, other in zip(theirs, found, strict=True)
        for line in one.answer.differences(other.answer)
    ]
    assert not (new := unexplained(different)), "\n".join(map(str, new))
    assert obsolete(different) == []
    surprises = [
        f"{step.call}: {step.answer.status}, not {step.call.expected}: {step.answer.body!r:.300}"
        for step in theirs[: len(theirs) - len(bare)]
        if step.answer.status != step.call.expected
    ]
    assert not surprises, "stock's status is not the expected one:\n" + "\n".join(surprises)


@pytest.fixture(scope="module")
def stock(folder: Path, postgres: Postgres, cloudsql_root: Path) -> Iterator[Stock]:
    made = folder / "stock"
    made.mkdir()
    running = Stock(made, made_for_stock(postgres, "parity_stock", cloudsql_root))
    yield running
    running.stop()


def test_every_response_equals_stocks(
    environment: dict[str, str], stock: Stock, folder: Path
) -> None:
    passes = {"0a01": alternating(WITH_THE_PAGE)}
    compare(environment, stock, folder, passes, bare_calls_alternating())


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

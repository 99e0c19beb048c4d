"""Jobs and workspaces are refused with one sentence, before MLflow sees the request."""

import ast
import asyncio
import json
from inspect import getsource
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from starlette.types import Receive, Scope, Send
from tracking_server.mlflow import internals
from tracking_server.mlflow.not_offered import NEVER_OFFERED, OFFERED, NotOffered

from tests.server.exchange import Exchange
from tests.server.flask_app import import_flask

CONFIG = "/ajax-api/3.0/mlflow/scorers/online-config"


async def echo(_: Scope, receive: Receive, send: Send) -> None:
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def answer(
    method: str,
    path: str,
    body: bytes = b"{}",
    headers: dict[str, str] | None = None,
    *,
    jobs: bool = False,
) -> tuple[int, Any]:
    async def run() -> Exchange:
        exchange = Exchange(NotOffered(echo, jobs=jobs), method, path, headers=headers)
        exchange.feed(body)
        return await exchange.done()

    exchange = asyncio.run(run())
    return exchange.status, json.loads(exchange.body)


def test_every_route_that_submits_a_job_is_refused() -> None:
    flask = import_flask()
    views = [
        (method, rule.rule, flask.view_functions[rule.endpoint])
        for rule in flask.url_map.iter_rules()  # type: ignore[attr-defined]
        for method in rule.methods - {"HEAD", "OPTIONS"}
    ] + [
        (method, str(context.path), context.endpoint)
        for context in iter_route_contexts(internals.import_fastapi().routes)
        for method in context.methods or ()
    ]
    submitting = {(method, path) for method, path, view in views if "submit_job" in _calls(view)}
    assert submitting == OFFERED.keys() | NEVER_OFFERED.keys()


def _calls(view: Any) -> set[str]:
    """Returns the names of the functions that a view calls directly."""
    source = getsource(view)
    tree = ast.parse("if True:\n" + source if source.startswith(" ") else source)
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {func.id for func in calls if isinstance(func, ast.Name)}


@pytest.mark.parametrize("jobs", [False, True])
@pytest.mark.parametrize(("method", "path"), [*OFFERED, *NEVER_OFFERED])
def test_a_job_is_refused(method: str, path: str, jobs: bool) -> None:
    status, body = answer(method, path, b'{"endpoint_name": "e"}', jobs=jobs)
    if jobs and (method, path) in OFFERED:
        assert status == 200
        return
    assert (status, body["error_code"]) == (501, "NOT_IMPLEMENTED")
    assert "in your own program" in body["message"]


@pytest.mark.parametrize(
    "body", [b"{}", b'{"secret_id": "s"}', b'{"endpoint_name": "e", "secret_id": "s"}']
)
def test_issues_are_only_detected_with_an_endpoint(body: bytes) -> None:
    status, refused = answer("POST", "/ajax-api/3.0/mlflow/issues/invoke", body, jobs=True)
    assert status == 501
    assert "create an endpoint" in refused["message"]


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize(("rate", "status"), [(0.5, 501), (2, 501), ("1", 501), (0, 200)])
def test_automatic_evaluation_can_only_be_off(rate: Any, status: int, twice: bool) -> None:
    body = json.dumps({"experiment_id": "0", "name": "judge", "sample_rate": rate})
    assert answer("PUT", CONFIG, (json.dumps(body) if twice else body).encode())[0] == status


def test_a_rate_is_accepted_with_jobs() -> None:
    assert answer("PUT", CONFIG, b'{"sample_rate": 0.5}', jobs=True)[0] == 200


@pytest.mark.parametrize("body", [b"{}", b"[]", b'"x"', b'{"sample_rate": "x"}'])
def test_mlflow_refuses_an_invalid_rate_itself(body: bytes) -> None:
    assert answer("PUT", CONFIG, body) == (200, json.loads(body))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/ajax-api/3.0/mlflow/prompt-optimization/jobs/search"),
        ("GET", "/ajax-api/3.0/mlflow/scorers/online-configs"),
        ("PATCH", "/ajax-api/3.0/jobs/cancel/x"),
        ("DELETE", "/api/3.0/mlflow/prompt-optimization/jobs/x"),
    ],
)
def test_jobs_of_a_moved_database_can_be_read_and_ended(method: str, path: str) -> None:
    assert answer(method, path)[0] == 200

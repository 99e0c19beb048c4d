"""MLflow's calls back to this server: who can make them, and for how long."""

from typing import Any

import pytest
from starlette.requests import Request
from tracking_server.gate.callbacks import DEEPEST, DEPTH, LIFETIME, Callbacks

PORT = 8080


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def scope(path: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "POST",
        "scheme": "https",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"mlflow.example.com")],
        "client": ("127.0.0.1", 1),
        **more,
    }


def offered(callbacks: Callbacks, **more: Any) -> str:
    """Returns the path that MLflow calls back."""
    request = scope("/gateway/a/mlflow/invocations", **more)
    callbacks.offer(request)
    # As MLflow's get_server_base_url builds it.
    url = Request(request).base_url
    assert (url.scheme, url.netloc) == ("http", f"127.0.0.1:{PORT}")
    return url.path.rstrip("/") + "/gateway/mlflow/v1/chat/completions"


def test_a_call_back_is_admitted_as_the_gateways() -> None:
    callbacks = Callbacks(port=PORT)
    accepted = callbacks.accepted(scope(offered(callbacks)))
    assert accepted is not None
    assert accepted["path"] == "/gateway/mlflow/v1/chat/completions"
    assert accepted["raw_path"] == b"/gateway/mlflow/v1/chat/completions"


def test_all_processes_of_a_container_accept_each_others_passes() -> None:
    one, other = Callbacks(key=b"k", port=PORT), Callbacks(key=b"k", port=PORT)
    assert other.accepted(scope(offered(one))) is not None
    assert Callbacks(port=PORT).accepted(scope(offered(one))) is None


@pytest.mark.parametrize(
    "change",
    [
        {"client": ("203.0.113.7", 1)},
        {"client": None},
        {"headers": [(b"x-forwarded-for", b"127.0.0.1")]},
        {"headers": [(b"forwarded", b"for=127.0.0.1")]},
        {"headers": [(b"via", b"1.1 proxy")]},
        {"method": "GET"},
        {"method": "DELETE"},
    ],
    ids=str,
)
def test_only_the_same_machine_can_call_back(change: dict[str, Any]) -> None:
    callbacks = Callbacks(port=PORT)
    assert callbacks.accepted(scope(offered(callbacks), **change)) is None


@pytest.mark.parametrize(
    "path",
    [
        "/gateway/mlflow/v1/chat/completions",
        "/callback",
        "/callback/",
        "/callback//gateway/x",
        "/callback/x/gateway/x",
        "/callback/1.1.x/gateway/x",
        "/callback/9999999999.1./gateway/x",
        "/callback/" + "9" * 5000 + ".1.x/gateway/x",
        "/callback/é.1.é/gateway/x",
    ],
)
def test_a_pass_cannot_be_forged(path: str) -> None:
    assert Callbacks(port=PORT).accepted(scope(path)) is None


def test_a_pass_is_only_valid_for_the_gateway() -> None:
    callbacks = Callbacks(port=PORT)
    path = offered(callbacks)
    start = path.removesuffix("/gateway/mlflow/v1/chat/completions")
    for target in ("/api/2.0/mlflow/runs/search", "/graphql", "gateway/x", "/Gateway/x", ""):
        assert callbacks.accepted(scope(start + target)) is None
    assert callbacks.accepted(scope(path.replace(".1.", ".2."))) is None


def test_a_pass_expires() -> None:
    clock = Clock()
    callbacks = Callbacks(port=PORT, clock=clock)
    path = offered(callbacks)
    clock.now += LIFETIME - 1
    assert callbacks.accepted(scope(path)) is not None
    clock.now += 2
    assert callbacks.accepted(scope(path)) is None


def test_calls_back_have_a_maximum_depth() -> None:
    callbacks = Callbacks(port=PORT)
    depth: dict[str, Any] = {}
    for level in range(1, DEEPEST + 1):
        accepted = callbacks.accepted(scope(offered(callbacks, **depth)))
        assert accepted is not None
        assert accepted[DEPTH] == level
        depth = {DEPTH: accepted[DEPTH]}
    last = scope("/gateway/a/mlflow/invocations", **depth)
    callbacks.offer(last)
    assert "app_root_path" not in last

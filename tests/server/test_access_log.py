"""One line for each request, without anything secret, and a response to every failure."""

import asyncio
import json
import logging
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message
from tracking_server.gate.access_log import LOG_FIELDS, NOT_LOGGED, AccessLog
from tracking_server.logs import CloudLoggingFormatter


def responding(status: int, *, body: bytes = b"", error: Exception | None = None) -> ASGIApp:
    """Returns an application that sends this response, and then raises the error."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        logging.getLogger("elsewhere").warning("inside")
        if status:
            await send({"type": "http.response.start", "status": status, "headers": []})
            for part in (body[:1], body[1:]):
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        if error:
            raise error

    return application


def handled(application: ASGIApp, **scope: Any) -> list[Message]:
    """Returns what the client of one request gets."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    def pool_use() -> dict[str, int]:
        return {"in_use": 3, "waiting": 1}

    scope = {
        "type": "http",
        "http_version": "2",
        "method": "GET",
        "raw_path": b"/x",
        "headers": [],
        **scope,
    }
    access_log = AccessLog(application)
    access_log.pool_use = pool_use
    asyncio.run(access_log(scope, None, send))  # type: ignore[arg-type]
    return sent


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """All log entries of the test, formatted in the context that logs them."""
    found: list[dict[str, Any]] = []
    caplog.set_level(logging.INFO)
    formatter = CloudLoggingFormatter("my-project")

    def keep(record: logging.LogRecord) -> bool:
        found.append(json.loads(formatter.format(record)))
        return True

    caplog.handler.addFilter(keep)
    return found


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "answered", "text", "severity"),
    [
        (
            RuntimeError("canary"),
            500,
            500,
            b"The server failed to handle this request; its log says why.\n",
            "ERROR",
        ),
        (
            ClientDisconnect(),
            499,
            400,
            b"The request's body ended too early: send it again.\n",
            "INFO",
        ),
    ],
)
def test_a_failing_application_gets_one_response(
    error: Exception,
    status: int,
    answered: int,
    text: bytes,
    severity: str,
    started: bool,
    lines: list[dict[str, Any]],
) -> None:
    start, *sent = handled(responding(200 if started else 0, body=b"12345", error=error))
    body = b"".join(message["body"] for message in sent)
    assert (start["status"], body) == ((200, b"12345") if started else (answered, text))
    _, first, *_ = lines
    assert first["severity"] == severity
    assert ("canary" in first.get("stack_trace", "")) == (status == 500)
    # A response that has begun can't be changed; a client that has left doesn't see it whole.
    logged = 200 if started and status == 500 else status
    assert lines[-1]["httpRequest"]["status"] == logged
    assert lines[-1]["severity"] == ("WARNING" if logged == 500 else "INFO")


@pytest.mark.parametrize(
    ("header", "trace"),
    [
        ((b"traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"), "a" * 32),
        ((b"x-cloud-trace-context", b"c" * 32 + b"/123;o=1"), "c" * 32),
        ((b"x-cloud-trace-context", b"d" * 32), "d" * 32),
        ((b"traceparent", b'"}{'), None),
        ((b"traceparent", b"00-short-01"), None),
    ],
)
def test_a_request_is_logged_without_its_headers_and_query(
    header: tuple[bytes, bytes], trace: str | None, lines: list[dict[str, Any]]
) -> None:
    handled(
        responding(503, body=b"12345"),
        http_version="1.1",
        method="POST",
        raw_path=b"/a%20b",
        query_string=b"token=canary",
        headers=[header, (b"authorization", b"Basic canary"), (b"cookie", b"canary")],
    )
    inside, access = lines
    request = access["httpRequest"]
    assert request.pop("latency").endswith("s")
    assert request == {
        "requestMethod": "POST",
        "requestUrl": "/a%20b",
        "status": 503,
        "responseSize": "5",
        "protocol": "HTTP/1.1",
    }
    assert access["severity"] == "WARNING"
    assert access["pool"] == {"in_use": 3, "waiting": 1}
    assert "wrong_credentials" not in access
    assert len(access["request_id"]) == 16
    assert access["request_id"] == inside["request_id"]
    expected = None if trace is None else f"projects/my-project/traces/{trace}"
    for entry in (inside, access):
        assert entry.get("logging.googleapis.com/trace") == expected
    assert "canary" not in json.dumps(lines)


def test_every_request_has_an_id_of_its_own(lines: list[dict[str, Any]]) -> None:
    for _ in range(2):
        handled(responding(200))
    assert len({entry["request_id"] for entry in lines}) == 2


@pytest.mark.parametrize(
    ("scope", "status", "logged"),
    [
        ({"raw_path": b"/health"}, 200, False),
        ({"raw_path": b"/health"}, 503, True),
        ({"raw_path": b"/health", "method": "POST"}, 401, True),
        ({"raw_path": b"/health/"}, 200, True),
        ({NOT_LOGGED: True}, 429, False),
        ({NOT_LOGGED: False}, 429, True),
    ],
)
def test_only_successful_probes_and_requests_logged_elsewhere_have_no_line(
    scope: dict[str, Any], status: int, logged: bool, lines: list[dict[str, Any]]
) -> None:
    handled(responding(status), **scope)
    assert [entry["httpRequest"]["status"] for entry in lines[1:]] == [status] * logged


def test_the_pass_of_a_call_back_is_not_logged(lines: list[dict[str, Any]]) -> None:
    handled(responding(200), raw_path=b"/callback/canary/gateway/x")
    assert lines[-1]["httpRequest"]["requestUrl"] == "/callback/…/gateway/x"
    assert "canary" not in json.dumps(lines)


@pytest.mark.parametrize(
    ("headers", "wrong"),
    [
        ([], False),
        ([(b"accept", b"*/*")], False),
        ([(b"authorization", b"Basic canary")], True),
        ([(b"x-mlflow-authorization", b"Basic canary")], True),
    ],
)
def test_a_failed_login_differs_from_a_browsers_first_request(
    headers: list[tuple[bytes, bytes]], wrong: bool, lines: list[dict[str, Any]]
) -> None:
    handled(responding(401), headers=headers)
    assert lines[-1]["wrong_credentials"] is wrong
    assert "canary" not in json.dumps(lines)


def test_a_client_with_the_previous_password_is_logged(lines: list[dict[str, Any]]) -> None:
    handled(responding(200))
    handled(responding(200), **{LOG_FIELDS: {"previous_password": "tracking", "client": "c"}})
    *_, without, _, using = lines
    assert "previous_password" not in without
    assert (using["previous_password"], using["client"]) == ("tracking", "c")

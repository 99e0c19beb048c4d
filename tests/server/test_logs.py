"""One JSON object a line, with what Cloud Logging reads and without what it must not see."""

import asyncio
import json
import logging
import subprocess
import sys
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from tracking_server.logs import AccessLog, CloudLoggingFormatter


def line(record: logging.LogRecord) -> dict[str, Any]:
    text = CloudLoggingFormatter("my-project").format(record)
    assert "\n" not in text
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def record(level: int, message: str, **more: Any) -> logging.LogRecord:
    return logging.makeLogRecord(
        {"levelno": level, "levelname": logging.getLevelName(level), "msg": message, **more}
    )


def test_a_record_is_one_line() -> None:
    assert line(record(logging.WARNING, "two\nlines"))["message"] == "two\nlines"
    assert line(record(logging.WARNING, "x"))["severity"] == "WARNING"


def test_only_the_lookup_that_nothing_waits_for_is_left_out() -> None:
    script = (
        "import logging; from tracking_server import logs; logs.configure('my-project')\n"
        "for path in ('/v1/projects/-/serviceAccounts/a@b.c/allowedLocations', '/b/my-bucket/o'):\n"
        "    logging.getLogger('urllib3.connectionpool').warning('Retrying: %s', path)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    [said] = done.stdout.splitlines()
    assert json.loads(said)["message"] == "Retrying: /b/my-bucket/o"


@pytest.mark.parametrize(
    ("error", "status", "severity"),
    [(RuntimeError("canary"), 500, "ERROR"), (ClientDisconnect(), 499, "INFO")],
)
def test_an_application_that_fails_is_answered_for(
    error: Exception, status: int, severity: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise error

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "http_version": "2", "method": "GET", "raw_path": b"/x", "headers": []}
    caplog.set_level(logging.INFO)
    asyncio.run(AccessLog(application, pool_use=dict)(scope, None, send))  # type: ignore[arg-type]
    assert caplog.records[0].levelname == severity
    assert caplog.records[-1].message == f"GET /x {status}"
    assert "canary" not in str(sent)
    told = {
        500: (500, b"The server failed to handle this request; its log says why.\n"),
        499: (400, b"The request's body ended too early: send it again.\n"),
    }
    assert (sent[0]["status"], sent[1]["body"]) == told[status]


def test_an_exception_is_in_the_same_line() -> None:
    try:
        raise KeyError("missing")
    except KeyError as error:
        found = line(record(logging.ERROR, "failed", exc_info=(KeyError, error, None)))
    assert "KeyError" in found["stack_trace"]


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
    header: tuple[bytes, bytes], trace: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    def pool_use() -> dict[str, int]:
        return {"in_use": 3, "waiting": 1}

    async def application(scope: Any, receive: Any, send: Any) -> None:
        logging.getLogger("elsewhere").warning("inside")
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body", "body": b"12345"})

    async def send(message: Any) -> None:
        pass

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": "/a b",
        "raw_path": b"/a%20b",
        "query_string": b"token=canary",
        "headers": [header, (b"authorization", b"Basic canary"), (b"cookie", b"canary")],
    }
    lines: list[dict[str, Any]] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(line(record))

    handler = Lines()
    logging.getLogger().addHandler(handler)
    caplog.set_level(logging.INFO)
    try:
        asyncio.run(AccessLog(application, pool_use=pool_use)(scope, None, send))  # type: ignore[arg-type]
    finally:
        logging.getLogger().removeHandler(handler)
    inside, access = lines
    assert access["httpRequest"]["requestUrl"] == "/a%20b"
    assert access["httpRequest"]["status"] == 503
    assert access["httpRequest"]["responseSize"] == "5"
    assert access["severity"] == "WARNING"
    assert access["pool"] == {"in_use": 3, "waiting": 1}
    assert "wrong_credentials" not in access
    expected = None if trace is None else f"projects/my-project/traces/{trace}"
    for entry in (inside, access):
        assert entry.get("logging.googleapis.com/trace") == expected
    assert "canary" not in json.dumps(lines)


@pytest.mark.parametrize(
    ("headers", "wrong"),
    [([], False), ([(b"accept", b"*/*")], False), ([(b"authorization", b"Basic canary")], True)],
)
def test_a_guess_is_told_from_a_browsers_first_request(
    headers: list[tuple[bytes, bytes]], wrong: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 401, "headers": []})

    async def send(message: Any) -> None:
        pass

    caplog.set_level(logging.INFO)
    scope = {
        "type": "http",
        "http_version": "2",
        "method": "GET",
        "raw_path": b"/",
        "headers": headers,
    }
    asyncio.run(AccessLog(application, pool_use=dict)(scope, None, send))  # type: ignore[arg-type]
    assert line(caplog.records[-1])["wrong_credentials"] is wrong
    assert "canary" not in caplog.text

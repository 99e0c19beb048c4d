"""Logs one JSON object per line, with the fields that Cloud Logging knows.

https://cloud.google.com/logging/docs/structured-logging#structured_logging_special_fields
"""

import json
import logging
import re
import sys
import threading
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from secrets import token_hex
from time import perf_counter
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_TRACE_HEADERS = (b"traceparent", b"x-cloud-trace-context")
# W3C's version-trace-span-flags, or Google's trace/span;o=options
_TRACE = re.compile(rb"(?:[0-9a-f]{2}-)?([0-9a-f]{32})[-/;].*|([0-9a-f]{32})")

_trace: ContextVar[str | None] = ContextVar("trace", default=None)
_request_id: ContextVar[str] = ContextVar("request_id", default="")

CLIENT_CLOSED_REQUEST = 499
"""nginx's status for a client that disconnected before the response; there is no standard one."""

NOT_LOGGED = "tracking_server.not_logged"
"""A key of the scope. Code that sets it has already logged the request in another way."""

access_log = logging.getLogger("tracking_server.access")


class CloudLoggingFormatter(logging.Formatter):
    """Formats a record as one line of JSON, with the trace of the request that it belongs to."""

    def __init__(self, project: str | None) -> None:
        super().__init__()
        self._project = project

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "severity": record.levelname,
            "message": record.getMessage(),
            "logger": record.name,
        }
        if record.exc_info and record.exc_info[0]:
            entry["stack_trace"] = self.formatException(record.exc_info)
        if identifier := _request_id.get():
            entry["request_id"] = identifier
        # Log-based metrics use these fields: infra/google/log_metrics.py refers to them by name.
        entry |= getattr(record, "fields", {})
        if request := getattr(record, "http_request", None):
            entry["httpRequest"] = request
        if self._project and (trace := _trace.get()):
            entry["logging.googleapis.com/trace"] = f"projects/{self._project}/traces/{trace}"
        return json.dumps(entry, ensure_ascii=False)


def request_id() -> str:
    """Returns the id of the current request in the log, or an empty string outside of one."""
    return _request_id.get()


def configure(project: str | None) -> None:
    """Send log records, warnings and uncaught exceptions through one handler to stdout."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(CloudLoggingFormatter(project))
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    logging.captureWarnings(True)
    # MLflow imports it. The pin in requirements.in makes sure that it still exists.
    warnings.filterwarnings("ignore", message="starlette.middleware.wsgi is deprecated")
    for chatty in ("alembic", "google", "urllib3", "_granian"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").addFilter(_is_news)
    uncaught = logging.getLogger("tracking_server.uncaught")
    sys.excepthook = lambda kind, error, trace: uncaught.critical(
        "uncaught %s", kind.__name__, exc_info=(kind, error, trace)
    )
    threading.excepthook = lambda args: uncaught.error(
        "uncaught %s in a thread",
        args.exc_type.__name__,
        exc_info=(args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback),
    )


def _is_news(record: logging.LogRecord) -> bool:
    """Filter out the warning that google-auth can't ask where its account may be used from.

    google-auth asks during the first requests, has no setting to turn that off, and continues
    without a response. Without access to Google, as on a computer without a network, each boot
    would begin with three warnings.
    https://github.com/googleapis/google-cloud-python/issues/17653
    """
    return "/allowedLocations" not in record.getMessage()


class AccessLog:
    """Logs the method, path, status, size and time of each request, and none of its headers.

    `pool_use` returns how many connections were in use. Exceptions are caught here: the traceback
    goes to the log, and none of it into the response.
    """

    def __init__(self, app: ASGIApp, *, pool_use: Callable[[], dict[str, int]]) -> None:
        self.app = app
        self._pool_use = pool_use

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        _trace.set(_trace_id(scope))
        _request_id.set(token_hex(8))
        started = perf_counter()
        status, size = 0, 0

        async def counted(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                size += len(message.get("body", b""))
            await send(message)

        # The pass in the path of a call back is valid for a while.
        path = re.sub(r"^/callback/[^/]*", "/callback/…", scope["raw_path"].decode("latin-1"))
        try:
            await self.app(scope, receive, counted)
        except ClientDisconnect:
            # A client that sends a malformed body looks disconnected, but can still be reached.
            if not status:
                await _answer(counted, 400, "The request's body ended too early: send it again.")
            status = CLIENT_CLOSED_REQUEST
        except Exception:
            access_log.exception("%s %s failed", scope["method"], path)
            if not status:
                await _answer(
                    counted, 500, "The server failed to handle this request; its log says why."
                )
        if status == 200 and scope["raw_path"] == b"/health":
            return  # a probe; anything else that is tried on this path is logged
        if scope.get(NOT_LOGGED):
            return
        fields: dict[str, Any] = {"pool": self._pool_use()}
        if status == 401:
            # Tells guesses from a browser's first request, which it sends before it prompts.
            logins = (b"authorization", b"x-mlflow-authorization")
            fields["wrong_credentials"] = any(name in logins for name, _ in scope["headers"])
        access_log.log(
            logging.WARNING if status >= 500 else logging.INFO,
            "%s %s %d",
            scope["method"],
            path,
            status,
            extra={
                "fields": fields,
                "http_request": {
                    "requestMethod": scope["method"],
                    # Without the query: a signed or hand-made one may carry a secret.
                    "requestUrl": path,
                    "status": status,
                    "responseSize": str(size),
                    "latency": f"{perf_counter() - started:.6f}s",
                    "protocol": f"HTTP/{scope['http_version']}",
                },
            },
        )


async def _answer(send: Send, status: int, text: str) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": f"{text}\n".encode()})


def _trace_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name in _TRACE_HEADERS and (found := _TRACE.fullmatch(value)):
            return (found[1] or found[2]).decode()
    return None

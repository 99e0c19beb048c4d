"""Logs each request, and turns an unexpected exception into a response."""

import logging
import re
from collections.abc import Callable
from time import perf_counter
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tracking_server.logs import begin_request

_TRACE_HEADERS = (b"traceparent", b"x-cloud-trace-context")
# W3C's version-trace-span-flags, or Google's trace/span;o=options
_TRACE = re.compile(rb"(?:[0-9a-f]{2}-)?([0-9a-f]{32})[-/;].*|([0-9a-f]{32})")

_PASS = re.compile(r"^/callback/[^/]*")

CLIENT_CLOSED_REQUEST = 499
"""nginx's status for a client that disconnected before the response; no standard has one."""

NOT_LOGGED = "tracking_server.not_logged"
"""A key of the scope. Code that sets it has already logged the request in another way."""

LOG_FIELDS = "tracking_server.log_fields"
"""A key of the scope: a dictionary, to which code inside may add fields for the log."""

log = logging.getLogger("tracking_server.access")


class AccessLog:
    """Logs the method, path, status, size and time of each request, and none of its headers.

    `pool_use` can be set to a function that returns how many connections were in use. Exceptions
    are caught here: the traceback goes to the log, and none of it into the response.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.pool_use: Callable[[], dict[str, int]] = dict

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin_request(_trace_id(scope))
        started = perf_counter()
        status, size = 0, 0
        added: dict[str, Any] = scope.setdefault(LOG_FIELDS, {})

        async def counted(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                size += len(message.get("body", b""))
            await send(message)

        # The pass in the path of a call back is valid for a while.
        path = _PASS.sub("/callback/…", scope["raw_path"].decode("latin-1"))
        try:
            await self.app(scope, receive, counted)
        except ClientDisconnect:
            # A client that sends a malformed body looks disconnected, but can still be reached.
            if not status:
                await _respond(counted, 400, "The request's body ended too early: send it again.")
            status = CLIENT_CLOSED_REQUEST
        except Exception:
            log.exception("%s %s failed", scope["method"], path)
            if not status:
                await _respond(
                    counted, 500, "The server failed to handle this request; its log says why."
                )
        if status == 200 and scope["raw_path"] == b"/health":
            return  # a probe; anything else that is tried on this path is logged
        if scope.get(NOT_LOGGED):
            return
        fields: dict[str, Any] = {"pool": self.pool_use()}
        fields |= added
        if status == 403 and "user" in fields:
            fields["denied"] = True
        if status == 401:
            # Tells guesses from a browser's first request, which it sends before it prompts.
            logins = (b"authorization", b"x-mlflow-authorization")
            fields["wrong_credentials"] = any(name in logins for name, _ in scope["headers"])
        log.log(
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


async def _respond(send: Send, status: int, text: str) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": f"{text}\n".encode()})


def _trace_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name in _TRACE_HEADERS and (found := _TRACE.fullmatch(value)):
            return (found[1] or found[2]).decode()
    return None

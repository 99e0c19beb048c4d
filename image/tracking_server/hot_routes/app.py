"""Passes each request to its hot route, or to MLflow's own."""

import logging
from collections.abc import Callable, Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from tracking_server.database.result_limits import ANSWER
from tracking_server.gate.access_log import LOG_FIELDS
from tracking_server.gate.body_limits import replayed
from tracking_server.gate.refusals import COME_BACK, refuse
from tracking_server.hot_routes.connections import FAILURES, was_refused
from tracking_server.hot_routes.request import NotHot
from tracking_server.hot_routes.routes import NOT_REPEATABLE, ROUTES, Database

Headers = Sequence[tuple[bytes, bytes]]

FlaskHeaders = Callable[[str, bytes, bytes], Headers | None]
"""`flask_headers.responder`."""

USUAL_HEADERS: Headers = (
    (b"content-type", b"application/json"),
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"vary", b"Origin"),
)
"""The headers that Flask sends to a client that isn't a browser, without those that
`ResponseHeaders` removes or replaces."""

UNAVAILABLE = (
    "The database can't respond at the moment, try again: the connection was lost, and the run may "
    "have been created"
)

log = logging.getLogger(__name__)


class OutcomeUnknown(Exception):
    """The connection failed, so the statement may have succeeded or not."""


def usual_headers(method: str, host: bytes, origin: bytes) -> Headers | None:
    """Returns the headers while MLflow isn't imported yet, as `flask_headers.responder` does."""
    return None if origin else USUAL_HEADERS


class HotFirst:
    """Passes requests to hot routes on to `hot`, and all others to `app`."""

    def __init__(self, hot: ASGIApp, app: ASGIApp) -> None:
        self.hot, self.app = hot, app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_hot = (scope["method"], scope["path"]) in ROUTES
        await (self.hot if is_hot else self.app)(scope, receive, send)


class HotRoutes:
    """Handles the requests that a hot route understands completely, and passes on all others.

    A request whose statement fails is passed on too, unchanged, so that every error is MLflow's.
    Bodies arrive in one message. Without a `database`, everything is passed on.
    """

    def __init__(
        self, app: ASGIApp, database: Database | None, flask_headers: FlaskHeaders = usual_headers
    ) -> None:
        self.app = app
        self.database = database
        self.flask_headers = flask_headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.database is None or (scope["method"], scope["path"]) not in ROUTES:
            await self.app(scope, receive, send)
            return
        body = (await receive())["body"]
        try:
            headers, text = await self._answer(self.database, scope, body)
        except (NotHot, ValueError, KeyError, TypeError):
            await self.app(scope, replayed(body, receive), send)
        except OutcomeUnknown:
            await refuse(send, 503, UNAVAILABLE, come_back=COME_BACK)
        else:
            scope.setdefault(LOG_FIELDS, {})["hot"] = True
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": text})

    async def _answer(self, database: Database, scope: Scope, body: bytes) -> tuple[Headers, bytes]:
        """Returns the headers and the body of the response.

        Raises:
            NotHot, ValueError, KeyError, TypeError: if MLflow has to handle the request.
            OutcomeUnknown: if the statement may have succeeded, and must not be repeated.
        """
        headers = self._headers(scope)
        route = ROUTES[scope["method"], scope["path"]]
        try:
            given = scope["query_string"] if scope["method"] == "GET" else body
            text = (await route(database, given)).encode()
        except FAILURES as error:
            log.info("hot routes: MLflow handles a request after %s", type(error).__name__)
            if route in NOT_REPEATABLE and not was_refused(error):
                raise OutcomeUnknown from None
            raise NotHot from None
        answer = ANSWER.get()
        if answer is not None and not answer.add_at_once(len(text)):
            raise NotHot
        return [*headers, (b"content-length", b"%d" % len(text))], text

    def _headers(self, scope: Scope) -> Headers:
        """Returns the headers that Flask would send.

        Raises:
            NotHot: if Flask would refuse the request, or might not read it as JSON.
        """
        host = origin = kind = b""
        for name, value in scope["headers"]:
            if name == b"content-type":
                kind = value
            elif name == b"origin":
                origin = value
            elif name == b"host":
                host = value
            elif name == b"x-mlflow-workspace":
                raise NotHot
        if scope["method"] == "POST" and kind.partition(b";")[0] != b"application/json":
            raise NotHot
        headers = self.flask_headers(scope["method"], host, origin)
        if headers is None:
            raise NotHot
        return headers

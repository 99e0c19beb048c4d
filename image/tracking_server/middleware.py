"""Puts the middleware together, which docs/middleware.md lists in the order of a request."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.types import ASGIApp

from tracking_server.boot.secrets import SecretValues
from tracking_server.boot.settings import ServerSettings
from tracking_server.database.result_limits import AnswerLimit, Answers
from tracking_server.gate.access_log import AccessLog
from tracking_server.gate.body_limits import Bodies
from tracking_server.gate.callbacks import Callbacks
from tracking_server.gate.concurrency_limit import Admission
from tracking_server.gate.gate import Gate
from tracking_server.gate.response_headers import ResponseHeaders
from tracking_server.gate.stall_timeout import Stalls
from tracking_server.hot_routes.app import HotFirst, HotRoutes
from tracking_server.hot_routes.connections import Connections
from tracking_server.hot_routes.routes import Database
from tracking_server.hot_routes.statements import SCHEMA_REVISION
from tracking_server.page.compressed_json import CompressedJson
from tracking_server.page.files import build_folder
from tracking_server.page.static_files import INDEX, PageFiles
from tracking_server.serve import memory
from tracking_server.serve.later import Later

if TYPE_CHECKING:
    from tracking_server.mlflow.app import Mlflow

EMBEDDABLE = "/static-files/lib/notebook-trace-renderer"
"""The start of the paths of the page that MLflow's client shows in a notebook's frame."""

log = logging.getLogger("tracking_server")


@dataclass(frozen=True, slots=True, kw_only=True)
class Middleware:
    """The layers in front of MLflow; `app` is the outermost one.

    `database` has the hot routes' own connections, if there are any.
    """

    app: ASGIApp
    access_log: AccessLog
    transfers: Later
    bodies: Bodies
    hot: HotRoutes
    mlflow: Later
    database: Database | None


def assemble(
    config: ServerSettings, values: SecretValues, mlflow: "Mlflow | None" = None
) -> Middleware:
    """Put the layers together. MLflow is connected later; only accounts need it here."""
    shares = memory.shares(config.memory, config.processes)
    page_folder = build_folder()
    database = _hot_database(config, values, mlflow)
    hot = HotRoutes(app := Later(), database)
    limited = AnswerLimit(hot, user=Answers(shares.answers), viewer=Answers(shares.viewers_answers))
    bodies = Bodies(limited)
    hot_first = HotFirst(bodies, transfers := Later())
    page = PageFiles(CompressedJson(hot_first), folder=page_folder)
    admission = Admission(Stalls(page), limit=config.max_concurrency)
    gate = Gate(
        admission,
        user=values.user,
        viewer=values.viewer,
        previous_user=values.previous_user,
        previous_viewer=values.previous_viewer,
        hosts=config.allowed_hosts,
        callbacks=Callbacks(port=config.port),
        trusted_proxies=config.trusted_proxies,
        on_this_computer=config.on_this_computer,
        logins=mlflow.logins if mlflow else None,
        sign_in=mlflow.sign_in if mlflow else None,
    )
    access_log = AccessLog(gate)
    # Outermost: the access log sends a response too, when everything inside has failed.
    headers = ResponseHeaders(access_log, page=page_folder / INDEX, embeddable=EMBEDDABLE)
    return Middleware(
        app=headers,
        access_log=access_log,
        transfers=transfers,
        bodies=bodies,
        hot=hot,
        mlflow=app,
        database=database,
    )


def connect(layers: Middleware, mlflow: "Mlflow") -> Callable[[], Awaitable[None]]:
    """Let the requests that need MLflow reach it. Returns the function that closes connections."""
    if layers.database and mlflow.schema_revision != SCHEMA_REVISION:
        log.warning(
            "hot routes are off: they were tested with the schema %s, and this is %s",
            SCHEMA_REVISION,
            mlflow.schema_revision,
        )
        layers.hot.database = None
    if layers.database:
        layers.database.use(mlflow.runs_query, mlflow.random_run_name)
    layers.hot.flask_headers = mlflow.flask_headers
    layers.access_log.pool_use = mlflow.pool_use
    layers.mlflow.set(mlflow.app)
    layers.transfers.set(transfers := mlflow.transfers(layers.bodies))

    async def close() -> None:
        await transfers.close()
        await mlflow.close()

    return close


def give_up(layers: Middleware) -> None:
    """Refuse the requests that wait for MLflow, because it can't be imported."""
    for waiting in (layers.mlflow, layers.transfers):
        waiting.set(None)


def _hot_database(
    config: ServerSettings, values: SecretValues, mlflow: "Mlflow | None"
) -> Database | None:
    """Returns the hot routes' own connections to the database, None if there are too few."""
    if not config.hot_connections:
        log.info("hot routes are off: they need one more database connection for each process")
        return None
    address = values.database.at_root(config.cloudsql_root)
    connections = Connections(address, count=config.hot_connections)
    return Database(connections, mlflow.permissions if mlflow else None)

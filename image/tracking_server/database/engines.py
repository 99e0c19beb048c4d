"""The way to Postgres: one pool for all of MLflow's engines, and no password in any URL.

MLflow opens an engine, each with a pool, for tracking, the registry and jobs. The plug-in below
gives them one, so that an instance never holds more connections than its setting says. It is
SQLAlchemy's documented way into `create_engine`:
https://docs.sqlalchemy.org/en/20/core/connections.html#sqlalchemy.engine.CreateEnginePlugin
"""

from typing import Any

from sqlalchemy import Engine, Pool, create_engine, event
from sqlalchemy.engine import URL, CreateEnginePlugin
from sqlalchemy.exc import DisconnectionError

from tracking_server.database import dialect, driver, errors
from tracking_server.database.pool import NestingPool

PLUGIN_URL = "postgresql+pg8000:///?plugin=tracking_server"
"""What MLflow is told: the address, user and password come from `connect_with`."""

CONNECT_TIMEOUT = 10.0
"""Seconds for each step of opening a connection."""

REMEMBERED_STATEMENTS = 64
"""Compiled statements that are kept, and half as many more before the oldest go. MLflow's own are
fewer; each filter of another shape is one more, of up to a megabyte."""

ANSWER_TIMEOUT = 100.0
"""Seconds for a statement: less than MLflow's client waits for a request, which are 120, or one
that has given up would go on holding a connection, and come again for another."""

_MLFLOW_POOL_SETTINGS = ("poolclass", "pool_recycle", "max_overflow", "pool_pre_ping")

_address: URL | None = None
_pool_size = 1
_shared_pool: Pool | None = None


def connect_with(url: URL, *, pool_size: int, cloudsql_root: str) -> None:
    """Say which database `PLUGIN_URL` means and how many connections this process may hold."""
    global _address, _pool_size
    _address, _pool_size = _at_root(url, cloudsql_root), pool_size


def single_connection_engine() -> Engine:
    """An engine that keeps one connection until it is disposed of.

    All of a boot shares it: where connections are scarce, the next one might not be had.
    """
    return create_engine(
        _configured(),
        module=driver,
        pool_size=1,
        max_overflow=-1,
        connect_args=_connect_args(),
    )


def close_pool() -> None:
    """Close every connection that isn't in use."""
    if _shared_pool is not None:
        _shared_pool.dispose()


def pool_use() -> dict[str, int]:
    """How far the pool was used since this was last asked; see `NestingPool.use`."""
    return _shared_pool.use() if isinstance(_shared_pool, NestingPool) else {}


def cut(thread: int) -> None:
    """End the statement that this thread waits for, whose result nobody wants any more."""
    if isinstance(_shared_pool, NestingPool):
        _shared_pool.cut(thread)


class SharedPool(CreateEnginePlugin):
    """Every engine made from `PLUGIN_URL` uses the pool of the first."""

    def __init__(self, url: URL, kwargs: dict[str, Any]) -> None:
        super().__init__(url, kwargs)
        for key in _MLFLOW_POOL_SETTINGS:
            kwargs.pop(key, None)
        kwargs["module"] = driver
        # Parameters hold what callers sent, and the text of an error goes to the log.
        kwargs["hide_parameters"] = True
        kwargs["query_cache_size"] = REMEMBERED_STATEMENTS
        if _shared_pool is None:
            kwargs.update(_pool_arguments(), poolclass=NestingPool)
        else:
            kwargs.pop("pool_size", None)
            kwargs["pool"] = _shared_pool

    def update_url(self, url: URL) -> URL:
        return _configured().set(drivername=dialect.DRIVER)

    def engine_created(self, engine: Engine) -> None:
        # No lock: the boot makes the first engine before anything else can make one.
        global _shared_pool
        first, _shared_pool = _shared_pool is None, engine.pool
        event.listen(engine, "handle_error", errors.translate)
        if first:
            event.listen(engine, "connect", _limit_statements)
            event.listen(engine, "checkout", _replace_if_dead)
        else:
            # SQLAlchemy prepares a dialect at its pool's next new connection. A shared pool may
            # never open another, so the dialect is prepared on one that is open.
            with engine.connect() as connection:
                engine.dialect.initialize(connection)


def _pool_arguments() -> dict[str, Any]:
    return {
        "connect_args": _connect_args()
        | {"timeout": CONNECT_TIMEOUT, "answer_timeout": ANSWER_TIMEOUT},
        # Zero overflow is what MLflow's own setting can't say: it reads 0 as unset.
        "max_overflow": 0,
        "pool_size": _pool_size,
        # The most recently used first, so that the rest can go idle.
        "pool_use_lifo": True,
    }


def _limit_statements(connection: driver.Connection, *_: object) -> None:
    connection.limit_statements()


def _replace_if_dead(connection: driver.Connection, *_: object) -> None:
    """What MLflow's pre-ping is for, mostly without its round trip."""
    if not connection.is_alive():
        raise DisconnectionError("the database has ended this connection")


def _configured() -> URL:
    """The address without its password, which travels in the connect arguments alone."""
    assert _address is not None, "connect_with was not called"  # noqa: S101
    return URL.create(
        _address.drivername,
        username=_address.username,
        host=_address.host,
        port=_address.port,
        database=_address.database,
        query=_address.query,
    )


def _connect_args() -> dict[str, Any]:
    assert _address is not None, "connect_with was not called"  # noqa: S101
    args: dict[str, Any] = {"password": _address.password}
    if "unix_sock" in _address.query:
        # The socket leads to Cloud SQL's connector, which speaks TLS to the database itself.
        # pg8000 would otherwise load every certificate authority only to be told "no TLS here".
        args["ssl_context"] = False
    return args


def _at_root(url: URL, cloudsql_root: str) -> URL:
    socket = url.query.get("unix_sock")
    if not isinstance(socket, str) or not socket.startswith("/cloudsql/"):
        return url
    return url.update_query_dict({"unix_sock": cloudsql_root + socket.removeprefix("/cloudsql")})

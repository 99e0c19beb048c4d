"""Gives all of MLflow's engines one connection pool, and keeps the password out of URLs.

MLflow creates separate engines, each with its own pool, for tracking, the registry and jobs. The
plug-in below makes them share one pool, so that an instance never holds more connections than its
setting says. Such plug-ins are SQLAlchemy's documented way to change `create_engine`:
https://docs.sqlalchemy.org/en/20/core/connections.html#sqlalchemy.engine.CreateEnginePlugin
"""

from typing import Any

from sqlalchemy import Engine, Pool, create_engine, event
from sqlalchemy.engine import URL, CreateEnginePlugin
from sqlalchemy.exc import DisconnectionError

from tracking_server.database import dialect, driver, errors
from tracking_server.database.address import DRIVER, Address
from tracking_server.database.pool import NestingPool

PLUGIN_URL = "postgresql+pg8000:///?plugin=tracking_server"
"""The URL that MLflow gets. The address, user and password come from `connect_with`."""

CONNECT_TIMEOUT = 10.0
"""Seconds for each step of opening a connection."""

REMEMBERED_STATEMENTS = 64
"""Compiled statements that SQLAlchemy caches; it removes the oldest at half as many more. MLflow's
own are fewer; each filter of another shape adds one of up to a megabyte."""

ANSWER_TIMEOUT = 100.0
"""Seconds for a statement: less than the 120 that MLflow's client waits for a request. Otherwise a
client that has given up would still hold a connection while its retry takes another."""

_MLFLOW_POOL_SETTINGS = ("poolclass", "pool_recycle", "max_overflow", "pool_pre_ping")

_address: Address | None = None
_pool_size = 1
_shared_pool: Pool | None = None


def connect_with(address: Address, *, pool_size: int) -> None:
    """Set the database behind `PLUGIN_URL`, and how many connections this process may hold."""
    global _address, _pool_size
    _address, _pool_size = address, pool_size


def single_connection_engine() -> Engine:
    """Returns an engine that keeps one connection until it is disposed of.

    The whole boot uses this connection: if connections are scarce, it might not get another one.
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
    """Returns how much of the pool was used since the last call; see `NestingPool.use`."""
    return _shared_pool.use() if isinstance(_shared_pool, NestingPool) else {}


def cut(thread: int) -> None:
    """End the statement that this thread waits for, because its client has disconnected."""
    if isinstance(_shared_pool, NestingPool):
        _shared_pool.cut(thread)


class SharedPool(CreateEnginePlugin):
    """Makes every engine with `PLUGIN_URL` use the pool of the first one."""

    def __init__(self, url: URL, kwargs: dict[str, Any]) -> None:
        super().__init__(url, kwargs)
        for key in _MLFLOW_POOL_SETTINGS:
            kwargs.pop(key, None)
        kwargs["module"] = driver
        # Parameters hold callers' data, and error texts go to the log.
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
        # No lock needed: the boot creates the first engine before other code can create one.
        global _shared_pool
        first, _shared_pool = _shared_pool is None, engine.pool
        event.listen(engine, "handle_error", errors.translate)
        if first:
            event.listen(engine, "connect", _limit_statements)
            event.listen(engine, "checkout", _replace_if_dead)
        else:
            # SQLAlchemy initializes a dialect at its pool's next new connection. The shared pool
            # may never open another one, so initialize the dialect on an open connection.
            with engine.connect() as connection:
                engine.dialect.initialize(connection)


def _pool_arguments() -> dict[str, Any]:
    return {
        "connect_args": _connect_args()
        | {"timeout": CONNECT_TIMEOUT, "answer_timeout": ANSWER_TIMEOUT},
        # MLflow's own setting can't express zero: it treats 0 as unset.
        "max_overflow": 0,
        "pool_size": _pool_size,
        # Reuse the most recently used connection first, so that the others become idle.
        "pool_use_lifo": True,
    }


def _limit_statements(connection: driver.Connection, *_: object) -> None:
    connection.limit_statements()


def _replace_if_dead(connection: driver.Connection, *_: object) -> None:
    """Does what MLflow's pre-ping is for, mostly without its round trip."""
    if not connection.is_alive():
        raise DisconnectionError("the database has ended this connection")


def _configured() -> URL:
    """Returns the address without the password, which is only in the connect arguments."""
    assert _address is not None, "connect_with was not called"  # noqa: S101
    return URL.create(
        DRIVER,
        username=_address.username,
        host=_address.host,
        port=_address.port,
        database=_address.database,
        query={"unix_sock": _address.unix_socket} if _address.unix_socket else {},
    )


def _connect_args() -> dict[str, Any]:
    assert _address is not None, "connect_with was not called"  # noqa: S101
    args: dict[str, Any] = {"password": _address.password}
    if _address.unix_socket:
        # The socket leads to Cloud SQL's connector, which itself speaks TLS to the database.
        # Otherwise pg8000 would load all certificate authorities, although the socket has no TLS.
        args["ssl_context"] = False
    return args

"""The database connections of the hot routes, on the event loop.

They are opened in the background, for the first request and after a failure. While none is open,
MLflow handles the requests, also with its own responses to an outage.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import asyncpg

from tracking_server.database.address import Address
from tracking_server.gate.viewer_policy import LOOKING
from tracking_server.hot_routes.answer import Row
from tracking_server.hot_routes.request import NotHot
from tracking_server.outgoing.egress import own_connection

STATEMENT_TIMEOUT = 2
"""Seconds after which Postgres ends a statement. MLflow then handles the request, within its own
limit."""

ANSWER_TIMEOUT = 4.0
"""Seconds to wait for a response before the connection counts as dead."""

CONNECT_TIMEOUT = 10.0
"""Seconds for opening a connection."""

PAUSE = 2.0
"""Seconds after a failed attempt to connect."""

WAITING = 1.0
"""Seconds that a request waits for a connection."""

REMEMBERED_STATEMENTS = 48
"""Prepared statements of a connection. About twenty are fixed; each filter of another shape adds
one."""

FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
"""The exceptions of a statement or a connection; asyncpg's timeouts are OSErrors too."""

TOO_SLOW = asyncpg.QueryCanceledError
"""The one that a statement raises after STATEMENT_TIMEOUT."""

log = logging.getLogger(__name__)


def was_refused(error: Exception) -> bool:
    """Whether the database has refused a statement, so that it has written nothing."""
    return isinstance(error, asyncpg.PostgresError) and not isinstance(
        error, asyncpg.PostgresConnectionError
    )


class Connections:
    """Keeps `count` connections open; a viewer's requests get at most half of them."""

    def __init__(self, address: Address, *, count: int) -> None:
        self._address, self._count = address, count
        self._idle: list[asyncpg.Connection] = []
        self._open = 0
        self._waiting: deque[asyncio.Future[asyncpg.Connection]] = deque()
        self._viewers = asyncio.Semaphore(max(1, count // 2))
        self._opening: asyncio.Task[None] | None = None

    async def fetch(self, statement: str, *values: Any) -> Sequence[Row]:
        """Run a statement in a transaction of its own, read-only for a viewer.

        Raises:
            NotHot: if no connection becomes free in time.
            One of FAILURES: if the statement fails, or its response doesn't arrive.
        """
        if LOOKING.get():
            if self._viewers.locked():
                raise NotHot
            async with self._viewers:
                return await self._fetch(statement, values, read_only=True)
        return await self._fetch(statement, values)

    async def open(self) -> None:
        """Wait for the first connection.

        Raises:
            NotHot: if it isn't opened in time.
        """
        self._open_more()
        self._give_back(await self._next())

    async def close(self) -> None:
        self._count = 0
        if self._opening is not None:
            self._opening.cancel()
        for connection in self._idle:
            connection.terminate()

    async def _fetch(
        self, statement: str, values: Sequence[Any], *, read_only: bool = False
    ) -> Sequence[Row]:
        connection = await self._take()
        try:
            async with connection.transaction(readonly=True) if read_only else nullcontext():
                rows: Sequence[Row] = await connection.fetch(statement, *values)
        except asyncpg.PostgresError:
            raise
        except BaseException:
            # The response may still arrive, and a later statement would read it as its own.
            connection.terminate()
            raise
        finally:
            self._give_back(connection)
        return rows

    async def _take(self) -> asyncpg.Connection:
        while True:
            if self._open < self._count:
                self._open_more()
            if not self._open:
                raise NotHot
            connection = self._idle.pop() if self._idle else await self._next()
            if not connection.is_closed():
                return connection
            self._open -= 1

    async def _next(self) -> asyncpg.Connection:
        """Wait in turn for a connection.

        A semaphore with a timeout would take twice the CPU time.
        """
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[asyncpg.Connection] = loop.create_future()
        self._waiting.append(turn)
        timer = loop.call_later(WAITING, _end, turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._give_back(turn.result())
            raise
        finally:
            timer.cancel()

    def _give_back(self, connection: asyncpg.Connection) -> None:
        if connection.is_closed() or not self._count:
            self._open -= 1
            connection.terminate()
        else:
            self._hand_over(connection)

    def _hand_over(self, connection: asyncpg.Connection) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(connection)
                return
        self._idle.append(connection)

    def _open_more(self) -> None:
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._open_all())

    async def _open_all(self) -> None:
        while self._open < self._count:
            try:
                connection = await self._connect()
            except FAILURES as error:
                log.warning("hot routes: no connection to the database: %s", type(error).__name__)
                await asyncio.sleep(PAUSE)
                return
            self._open += 1
            self._hand_over(connection)

    async def _connect(self) -> asyncpg.Connection:
        address = self._address
        place: dict[str, Any] = {"host": address.host, "port": address.port}
        if address.unix_socket:
            # asyncpg is given the folder and the port, which are parts of the socket's path.
            folder, _, name = address.unix_socket.rpartition("/")
            place = {"host": folder, "port": int(name.rpartition(".")[2])}
        with own_connection():
            return await asyncpg.connect(
                **place,
                user=address.username,
                password=address.password,
                database=address.database,
                timeout=CONNECT_TIMEOUT,
                command_timeout=ANSWER_TIMEOUT,
                statement_cache_size=REMEMBERED_STATEMENTS,
                server_settings={"statement_timeout": f"{STATEMENT_TIMEOUT}s"},
            )


def _end(turn: asyncio.Future[asyncpg.Connection]) -> None:
    if not turn.done():
        turn.set_exception(NotHot())

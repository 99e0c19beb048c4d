"""A connection pool for threads that need a second connection before they return the first.

MLflow's stores open sessions within sessions: a log-batch that renames its run holds four. With an
ordinary pool, as many log-batches at a time as the pool has connections would each hold one and
wait for another until all of them time out.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Condition, RLock, get_ident
from typing import Any

from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection, QueuePool

from tracking_server.boot.settings import CONNECTIONS_PER_PROCESS as DEEPEST
from tracking_server.database.errors import DatabaseUnavailable
from tracking_server.gate.viewer_policy import LOOKING

# SQLAlchemy logs a pool's end to the logger named after the pool's module.
logging.getLogger(__name__).setLevel(logging.WARNING)

_USE = "tracking_server.use"

LOOPS_PATIENCE = 1.0
"""Seconds that the event loop waits for a connection, ahead of all threads. Some of MLflow's own
routes use the database on the event loop, which blocks all other requests. A viewer's request
doesn't wait."""


@dataclass(frozen=True, slots=True, eq=False)
class _Use:
    thread: int
    connection: DBAPIConnection | None


class NestingPool(QueuePool):
    """Reserves connections for threads that hold some already, so that they can't deadlock.

    A thread gets its nth connection only if enough stay free for it to go from n to `DEEPEST`. So
    the thread that was served last can always get the rest of its connections and finish. Viewers'
    requests get at most half of the connections and wait in a separate queue, so that they don't
    delay the user's.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lock = RLock()
        self._further = Condition(self._lock)
        self._queue: deque[Condition] = deque()
        self._viewers_queue: deque[Condition] = deque()
        self._viewers: set[int] = set()
        self._taken = self._waiting = 0
        self._most_taken = self._most_waiting = 0
        self._held: Counter[int] = Counter()
        self._uses: set[_Use] = set()

    def use(self) -> dict[str, int]:
        """Returns the most connections in use, and threads waiting, at once since the last call.

        It doesn't take the lock, because the event loop must not wait for it. It may therefore miss
        a change that happens at the same moment.
        """
        most = {"in_use": self._most_taken, "waiting": self._most_waiting}
        self._most_taken, self._most_waiting = self._taken, self._waiting
        return most

    def cut(self, thread: int) -> None:
        """Raise an error at once in a thread that waits for the database."""
        for use in list(self._uses):
            if use.thread == thread and use.connection is not None:
                use.connection.cut()

    def connect(self) -> PoolProxiedConnection:
        thread = get_ident()
        self._take(thread)
        try:
            connection = super().connect()
        except BaseException:
            self._give_back(thread)
            raise
        use = _Use(thread, connection.dbapi_connection)
        connection.record_info[_USE] = use  # type: ignore[index]  # it has a record
        with self._lock:
            self._uses.add(use)
        return connection

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        # It counts for the thread that took it, whichever thread closes it. A connection that was
        # never handed out counts for none.
        use = (record.record_info or {}).pop(_USE, None)
        super()._do_return_conn(record)
        if use is not None:
            with self._lock:
                self._uses.discard(use)
                self._give_back(use.thread)

    def _take(self, thread: int) -> None:
        with self._lock:
            nth = self._held[thread] + 1
            on_loop = _on_event_loop()
            # The event loop takes any free connection: it never keeps one for long.
            leaves = 0 if on_loop else max(0, min(DEEPEST, self.size()) - nth)
            looking = LOOKING.get()
            queue = self._viewers_queue if looking else self._queue

            def room() -> bool:
                if looking and nth == 1 and len(self._viewers) >= max(1, self.size() // 2):
                    return False
                return self.size() - self._taken > leaves

            seconds = self.timeout()
            if on_loop:
                seconds = 0 if looking else LOOPS_PATIENCE
            in_turn = nth == 1 and not on_loop
            if not (
                self._wait_in_turn(queue, room, seconds)
                if in_turn
                else self._wait(self._further, room, seconds)
            ):
                raise DatabaseUnavailable(
                    f"no connection of {self.size()} became free within {seconds:g} s"
                )
            self._taken += 1
            self._most_taken = max(self._most_taken, self._taken)
            self._held[thread] = nth
            if looking:
                self._viewers.add(thread)

    def _wait_in_turn(
        self, queue: deque[Condition], room: Callable[[], bool], seconds: float
    ) -> bool:
        """Wait behind earlier threads; without a queue some would wait much longer than others."""
        turn = Condition(self._lock)
        queue.append(turn)
        try:
            return self._wait(turn, lambda: queue[0] is turn and room(), seconds)
        finally:
            queue.remove(turn)
            self._call_next()

    def _call_next(self) -> None:
        for queue in (self._queue, self._viewers_queue):
            if queue:
                queue[0].notify()

    def _wait(self, freed: Condition, room: Callable[[], bool], seconds: float) -> bool:
        if room():
            return True
        self._waiting += 1
        self._most_waiting = max(self._most_waiting, self._waiting)
        try:
            return freed.wait_for(room, seconds)
        finally:
            self._waiting -= 1

    def _give_back(self, thread: int) -> None:
        with self._lock:
            self._taken -= 1
            self._held[thread] -= 1
            self._forget_if_idle(thread)
            self._further.notify_all()
            self._call_next()

    def _forget_if_idle(self, thread: int) -> None:
        if not self._held[thread]:
            self._held.pop(thread, None)
            self._viewers.discard(thread)


def _on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True

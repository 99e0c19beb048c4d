"""A pool for threads that need a second connection before they give back the first.

MLflow's stores open sessions within sessions: a log-batch that renames its run holds four. Without
more connections than the pool's, as many log-batches at a time as the pool has connections would
each hold one and wait for another until all time out.
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

# SQLAlchemy names a pool's logger by its module, and tells of its end there.
logging.getLogger(__name__).setLevel(logging.WARNING)

_USE = "tracking_server.use"

LOOPS_PATIENCE = 0.2
"""Seconds that the event loop waits for a connection, ahead of all threads: some of MLflow's own
routes use the database there, and nobody is served meanwhile. A viewer's request doesn't wait."""


@dataclass(frozen=True, slots=True, eq=False)
class _Use:
    thread: int
    connection: DBAPIConnection | None


class NestingPool(QueuePool):
    """Keeps connections free for those who hold some already, the more the fewer they hold.

    Whoever takes their nth leaves what it takes to get from n to `DEEPEST`. So when everyone
    waits, the last to be served, who holds the most, has left enough for itself: it never waits.
    Viewers' requests get half of the connections and wait in a separate queue, so that they don't
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
        """The most connections in use and threads waiting at once since it was last asked.

        Without the lock, for the event loop must not wait for it: what two threads do in the same
        microsecond may be missed.
        """
        most = {"in_use": self._most_taken, "waiting": self._most_waiting}
        self._most_taken, self._most_waiting = self._taken, self._waiting
        return most

    def cut(self, thread: int) -> None:
        """Give a thread that waits for the database an error at once."""
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
        # Whoever closes it, it was this thread's. One that was never handed out is nobody's.
        use = (record.record_info or {}).pop(_USE, None)
        super()._do_return_conn(record)
        if use is not None:
            with self._lock:
                self._uses.discard(use)
                self._give_back(use.thread)

    def _take(self, thread: int) -> None:
        with self._lock:
            nth = self._held[thread] + 1
            leaves = max(0, min(DEEPEST, self.size()) - nth)
            looking = LOOKING.get()
            queue = self._viewers_queue if looking else self._queue

            def room() -> bool:
                if looking and nth == 1 and len(self._viewers) >= max(1, self.size() // 2):
                    return False
                return self.size() - self._taken > leaves

            seconds = self.timeout()
            if _on_event_loop():
                seconds = 0 if looking else LOOPS_PATIENCE
                found = self._wait(self._further, room, seconds)
            elif nth == 1:
                found = self._wait_in_turn(queue, room, seconds)
            else:
                found = self._wait(self._further, room, seconds)
            if not found:
                self._forget_if_idle(thread)
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
        """Behind those who wait already, or the last of many would wait the longer."""
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

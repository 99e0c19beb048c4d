"""The pool of connections, for threads that need more of them while they hold one."""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from sqlite3 import Connection, connect
from threading import Barrier, get_ident

import pytest
from sqlalchemy.pool import PoolProxiedConnection
from tracking_server.database.errors import DatabaseUnavailable
from tracking_server.database.pool import DEEPEST, NestingPool
from tracking_server.gate.viewer_policy import LOOKING

from tests.server.conftest import StartServer
from tests.server.process import eventually

PATIENCE = 3
"""Seconds; the pool's own limit is 5."""


def opened() -> Connection:
    return connect(":memory:", check_same_thread=False)


def make_pool(size: int, *, creator: Callable[[], Connection] = opened) -> NestingPool:
    return NestingPool(creator, pool_size=size, max_overflow=0, timeout=5)


@pytest.mark.parametrize(
    ("size", "depth"), [(1, 1), (2, 2), (3, 3), (4, DEEPEST), (5, DEEPEST), (8, DEEPEST), (8, 2)]
)
def test_nested_connections_do_not_deadlock(size: int, depth: int) -> None:
    pool = make_pool(size)
    threads = 3 * size

    def nested(left: int) -> int:
        if not left:
            return 0
        with closing(pool.connect()):
            # Let all threads take a first connection before any takes a second.
            time.sleep(0.01)
            held = pool.checkedout()
            return max(held, nested(left - 1))

    with ThreadPoolExecutor(threads) as executor:
        held = list(executor.map(nested, [depth] * threads))
    assert max(held) <= size
    assert pool.checkedout() == 0


@pytest.mark.parametrize("looking", [True, False])
def test_the_event_loop_does_not_wait_for_threads(looking: bool) -> None:
    """Some of MLflow's own routes use the database on the event loop, which blocks all requests."""
    pool = make_pool(4)

    async def connect() -> None:
        LOOKING.set(looking)
        pool.connect().close()

    with ThreadPoolExecutor(1) as executor:
        held = [executor.submit(pool.connect).result() for _ in range(3)]
        # Other threads would leave this connection to the thread that holds the others.
        asyncio.run(connect())
        held.append(executor.submit(pool.connect).result())
        with pytest.raises(DatabaseUnavailable, match=" within 0 s" if looking else " within 1 s"):
            asyncio.run(connect())
        for connection in held:
            connection.close()
    asyncio.run(connect())


def test_use_reports_the_maximum_since_the_last_report() -> None:
    pool = make_pool(2)
    assert pool.use() == {"in_use": 0, "waiting": 0}
    with ExitStack() as stack, ThreadPoolExecutor(2) as executor:
        outer = stack.enter_context(closing(pool.connect()))
        with closing(pool.connect()):
            waiting = [executor.submit(lambda: pool.connect().close()) for _ in range(2)]
            until = time.monotonic() + 5
            while pool._waiting < 2 and time.monotonic() < until:
                time.sleep(0.01)
            assert pool.use() == {"in_use": 2, "waiting": 2}
        outer.close()
        for turn in waiting:
            turn.result()
    # Connections in use and waits that continue count for the next report too.
    assert pool.use() == {"in_use": 2, "waiting": 2}
    assert pool.use() == {"in_use": 0, "waiting": 0}
    with pytest.raises(ZeroDivisionError), closing(pool.connect()):
        _ = 1 / 0
    assert pool.use() == {"in_use": 1, "waiting": 0}


def test_first_connections_leave_enough_for_one_thread_to_nest() -> None:
    pool = make_pool(8)
    outermost = 8 - (DEEPEST - 1)
    barrier = Barrier(outermost)

    def hold() -> None:
        with closing(pool.connect()):
            barrier.wait(5)

    with ThreadPoolExecutor(outermost) as executor:
        for held in [executor.submit(hold) for _ in range(outermost)]:
            held.result()


class Threads:
    """Threads that a test tells one by one to take connections; a viewer's if `looking`."""

    def __init__(self, pool: NestingPool, stack: ExitStack) -> None:
        self._pool, self._stack = pool, stack

    def make(self, *, looking: bool = False) -> Callable[[], Future[PoolProxiedConnection]]:
        executor = self._stack.enter_context(ThreadPoolExecutor(1))
        executor.submit(LOOKING.set, looking).result()
        return lambda: executor.submit(self._pool.connect)


@pytest.fixture
def threads() -> Iterator[tuple[NestingPool, Threads]]:
    with ExitStack() as stack:
        pool = make_pool(8)
        yield pool, Threads(pool, stack)


def until_waiting(pool: NestingPool, number: int) -> None:
    assert eventually(lambda: pool._waiting == number)


def test_a_freed_connection_wakes_the_thread_that_can_use_it(
    threads: tuple[NestingPool, Threads],
) -> None:
    """The thread that has waited longest may have to leave it for the others."""
    pool, made = threads
    shallow, deep = made.make(), made.make()
    held = [shallow().result(), deep().result(), deep().result()]

    async def on_the_loop() -> PoolProxiedConnection:
        return pool.connect()

    # One stays free, which is kept for a thread that needs its fourth.
    more = [asyncio.run(on_the_loop()) for _ in range(4)]
    second = shallow()
    until_waiting(pool, 1)
    third = deep()
    until_waiting(pool, 2)
    more.pop().close()
    held.append(third.result(PATIENCE))
    assert not second.done()
    for connection in held[1:] + more:
        connection.close()
    second.result(PATIENCE).close()
    held[0].close()
    assert pool.checkedout() == 0


@pytest.mark.parametrize("looking", [False, True])
def test_connections_freed_at_once_serve_as_many_waiting_threads(
    threads: tuple[NestingPool, Threads], looking: bool
) -> None:
    """All of them wake the first in the queue, which has to wake the next."""
    pool, made = threads
    free = 8 - (DEEPEST - 1)
    held = [made.make(looking=looking)().result() for _ in range(4 if looking else free)]
    waiting = []
    for number in range(3):
        waiting.append(made.make(looking=looking)())
        until_waiting(pool, number + 1)
    # None of them runs in between.
    with pool._lock:
        for connection in held[:3]:
            connection.close()
    for connection in [*held[3:], *(turn.result(PATIENCE) for turn in waiting)]:
        connection.close()
    assert pool.checkedout() == 0


def test_viewers_hold_half_of_the_connections_at_most(
    threads: tuple[NestingPool, Threads],
) -> None:
    pool, made = threads
    held = [made.make(looking=True)().result() for _ in range(4)]
    fifth = made.make(looking=True)()
    until_waiting(pool, 1)
    # A waiting viewer delays no user.
    made.make()().result(PATIENCE).close()
    assert not fifth.done()
    held.pop().close()
    held.append(fifth.result(PATIENCE))
    for connection in held:
        connection.close()
    # They may do so again.
    held = [made.make(looking=True)().result(PATIENCE) for _ in range(4)]
    for connection in held:
        connection.close()


def test_only_the_thread_that_waits_for_the_database_is_cut() -> None:
    cut: list[int] = []

    class Cuttable(Connection):
        def cut(self) -> None:
            cut.append(id(self))

    pool = make_pool(
        2, creator=lambda: connect(":memory:", check_same_thread=False, factory=Cuttable)
    )
    with closing(pool.connect()) as connection:
        pool.cut(0)
        assert not cut
        pool.cut(get_ident())
        assert cut == [id(connection.dbapi_connection)]
    # The connection is in the pool again, and may already serve another thread.
    pool.cut(get_ident())
    assert len(cut) == 1


def test_waiting_too_long_for_a_connection_is_an_error() -> None:
    pool = NestingPool(opened, pool_size=1, max_overflow=0, timeout=0.1)
    message = "no connection of 1 became free within"
    pool_holder = get_ident()
    with closing(pool.connect()), ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(pool.connect)
        with pytest.raises(DatabaseUnavailable, match=message):
            waiting.result()
        assert (pool._waiting, dict(pool._held)) == (0, {pool_holder: 1})
    pool.connect().close()


def test_waiting_threads_are_served_in_order() -> None:
    pool = make_pool(1)
    served: list[int] = []

    def take(number: int) -> None:
        with closing(pool.connect()):
            served.append(number)

    held = pool.connect()
    with ThreadPoolExecutor(8) as executor:
        for number in range(8):
            executor.submit(take, number)
            while len(pool._queue) <= number:
                time.sleep(0.001)
        # The thread that returns the connection requests it again, and would otherwise be first.
        held.close()
        take(8)
    assert served == list(range(9))


def test_failed_and_lost_connections_take_no_place() -> None:
    failing = True

    def sometimes() -> Connection:
        if failing:
            raise ConnectionError
        return opened()

    pool = make_pool(1, creator=sometimes)
    for _ in range(3):
        with pytest.raises(ConnectionError):
            pool.connect()
    failing = False
    pool.connect().invalidate()
    pool.connect().detach()
    connection = pool.connect()
    with ThreadPoolExecutor(1) as executor:
        executor.submit(connection.close).result()
    connection = pool.connect()
    del connection  # the garbage collector returns it
    pool.connect().close()


def test_every_thread_can_run_log_batch_at_the_same_time(
    fork: StartServer, environment: dict[str, str]
) -> None:
    server = fork(environment).ready()
    api = "/api/2.0/mlflow"
    with ExitStack() as stack:
        client = stack.enter_context(server.client())
        experiment = client.post(f"{api}/experiments/create", json={"name": "nested"}).json()
        threads = 12
        runs = [
            client.post(f"{api}/runs/create", json=experiment).json()["run"]["info"]["run_id"]
            for _ in range(threads)
        ]

        def log(run: str) -> int:
            # The tag renames the run, for which MLflow nests the most sessions.
            body = {
                "run_id": run,
                "metrics": [{"key": "loss", "value": 1, "timestamp": 1}],
                "tags": [{"key": "mlflow.runName", "value": "renamed"}],
            }
            return client.post(f"{api}/runs/log-batch", json=body).status_code

        executor = stack.enter_context(ThreadPoolExecutor(threads))
        assert set(executor.map(log, runs)) == {200}

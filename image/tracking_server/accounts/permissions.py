"""Asks MLflow which requests an account may make, and remembers its decisions for a while."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Generic, Literal, Protocol, TypeVar

import anyio.to_thread

from tracking_server.accounts.logins import REMEMBERED_SECONDS, shrink

Action = Literal["read run", "update run", "create run", "read experiment", "search runs"]

THREADS = 2
"""Decisions that are asked for at a time; each takes some milliseconds of a CPU."""

K = TypeVar("K")
V = TypeVar("V")


class Ask(Protocol):
    """`auth_app.allows`."""

    def __call__(
        self, username: str, action: Action, *, experiment_id: str, run_id: str
    ) -> bool: ...


class Remembered(Generic[K, V]):
    """The values that were put in last; each is returned for `REMEMBERED_SECONDS`."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._entries: OrderedDict[K, tuple[V, float]] = OrderedDict()

    def get(self, key: K) -> V | None:
        value, until = self._entries.get(key, (None, 0.0))
        return value if self._clock() < until else None

    def put(self, key: K, value: V) -> None:
        self._entries[key] = value, self._clock() + REMEMBERED_SECONDS
        self._entries.move_to_end(key)
        shrink(self._entries)


class Permissions:
    """Remembers for a while what each account may do in an experiment, and with its runs."""

    def __init__(self, ask: Ask, clock: Callable[[], float] = monotonic) -> None:
        self._ask = ask
        self._decisions: Remembered[tuple[int, str, Action, int], bool] = Remembered(clock)
        self._asking: dict[tuple[int, str, Action, int], asyncio.Task[bool]] = {}
        self._changes = 0
        self._threads = anyio.CapacityLimiter(THREADS)

    def forget(self) -> None:
        """Ask again for every permission, because one may have changed.

        Any thread may call this.
        """
        self._changes += 1

    async def granted(
        self, username: str, action: Action, experiment_id: int, run_id: str = ""
    ) -> bool:
        """Returns whether an account may do this, with the run if the action is about one.

        Raises:
            Exception: if MLflow can't decide, for example because the database doesn't respond.
        """
        # A decision that is made while something changes has the previous number of changes, so
        # later requests don't get it.
        key = (self._changes, username, action, experiment_id)
        if (known := self._decisions.get(key)) is not None:
            return known
        if (task := self._asking.get(key)) is None:
            task = asyncio.create_task(self._decide(key, run_id))
            self._asking[key] = task
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        # If a client disconnects, the task goes on for others with the same question.
        return await asyncio.shield(task)

    async def _decide(self, key: tuple[int, str, Action, int], run_id: str) -> bool:
        _, username, action, experiment_id = key
        granted = await anyio.to_thread.run_sync(
            lambda: self._ask(username, action, experiment_id=str(experiment_id), run_id=run_id),
            limiter=self._threads,
        )
        self._decisions.put(key, granted)
        return granted

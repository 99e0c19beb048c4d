"""Gives people whom Google has signed in the account with their e-mail address."""

import asyncio
from collections.abc import Callable, Collection

import anyio.to_thread

from tracking_server.accounts.assertions import Assertions
from tracking_server.accounts.identity import Identity
from tracking_server.accounts.logins import MAX_WAITING, THREADS, Account, Busy
from tracking_server.accounts.permissions import Remembered


class SignIn:
    """Finds the account of each assertion, and remembers it for a while.

    `find` returns the account of an address, which it may create, or None; it may block. The names
    in `reserved` belong to logins that only the stack's own passwords open.
    """

    def __init__(
        self,
        assertions: Assertions,
        find: Callable[[str], Account | None],
        *,
        reserved: Collection[str],
    ) -> None:
        self.address = assertions.address
        self._find = find
        self._reserved = frozenset(reserved)
        self._known: Remembered[tuple[int, str], Identity] = Remembered()
        self._finding: dict[tuple[int, str], asyncio.Task[Identity | None]] = {}
        self._changes = 0
        self._threads = anyio.CapacityLimiter(THREADS)

    def forget(self) -> None:
        """Read every account again at its next request, because one may have changed.

        Any thread may call this.
        """
        self._changes += 1

    async def account(self, address: str) -> Identity | None:
        """Returns the account of a person whom Google has signed in, None if there is none.

        Raises:
            Busy: if too many accounts are being looked for.
            Exception: if the database doesn't respond.
        """
        if address in self._reserved:
            return None
        key = (self._changes, address)
        if known := self._known.get(key):
            return known
        if (task := self._finding.get(key)) is None:
            if len(self._finding) >= MAX_WAITING:
                raise Busy
            task = asyncio.create_task(self._look_up(key))
            self._finding[key] = task
            task.add_done_callback(lambda _: self._finding.pop(key, None))
        # If a client disconnects, the task goes on for others with the same address.
        return await asyncio.shield(task)

    async def _look_up(self, key: tuple[int, str]) -> Identity | None:
        found = await anyio.to_thread.run_sync(self._find, key[1], limiter=self._threads)
        if found is None:
            return None
        identity = Identity(found.username, found.is_admin)
        self._known.put(key, identity)
        return identity

"""Checks the names and passwords of people's accounts.

Comparing a password with its hash takes 50 ms on purpose. So a password is compared once; then the
server keeps a digest of the login, and reads the account again after `REMEMBERED_SECONDS`.
"""

import asyncio
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from time import monotonic
from typing import Any

from tracking_server.accounts.identity import Identity
from tracking_server.gate.failed_logins import FailedLogins

REMEMBERED_SECONDS = 30.0
"""A removed person is locked out, and a new password needed, after this time at most. The instance
that makes the change forgets all logins at once."""

MAX_REMEMBERED = 10_000
"""Logins that are remembered, in some 3 MB; beyond that the one unused for longest is forgotten."""

THREADS = 2
"""Logins that are compared at a time; each takes 32 MB of memory and most of a CPU."""

MAX_WAITING = 50
"""Logins that wait for one of these threads."""


@dataclass(frozen=True, slots=True)
class Account:
    """A row of MLflow's table of users."""

    username: str
    password_hash: str
    is_admin: bool


class Busy(Exception):
    """Too many logins wait to be checked."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A login that isn't accepted; with a `wait`, it was refused without a check."""

    wait: int = 0


@dataclass(frozen=True, slots=True)
class _Checked:
    """A login whose password was right, for the hash that the account then had.

    `changes` is the number of changes to accounts that it takes into account.
    """

    identity: Identity
    password_hash: str
    until: float
    changes: int


class Logins:
    """Checks `name:password`, and remembers the right ones.

    `find` returns an account by its name; it may block. The names in `reserved` belong to logins
    that the gate checks itself.
    """

    def __init__(
        self,
        find: Callable[[str], Account | None],
        *,
        reserved: Collection[str],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._find = find
        self._reserved = frozenset(reserved)
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._checked: OrderedDict[bytes, _Checked] = OrderedDict()
        self._checking: dict[bytes, asyncio.Task[Identity | None]] = {}
        self._changes = 0
        self._failed = FailedLogins()
        self._successes: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="logins")

    def forget(self) -> None:
        """Read every account again at its next request, because one may have changed.

        Any thread may call this.
        """
        self._changes += 1

    def remembered(self, given: bytes) -> Identity | None:
        """Returns the account of a login that was right a moment ago."""
        checked = self._checked.get(self._digest(given))
        if checked and checked.changes == self._changes and self._clock() < checked.until:
            return checked.identity
        return None

    async def check(self, given: bytes, network: str, *, wait: int = 0) -> Identity | Refused:
        """Check a login from a client's network, which may have to wait so many seconds.

        While a network or an account has to wait, because of its failed logins, only logins that
        were right before are checked; those of an account also from networks that its owner has
        used. So guessing doesn't lock anyone out.

        Raises:
            Busy: if too many logins are being checked.
            Exception: if the database doesn't respond.
        """
        try:
            name, _, password = given.decode().partition(":")
        except UnicodeDecodeError:
            return Refused()
        if name in self._reserved:
            return Refused()
        digest = self._digest(given)
        if (name, network) not in self._successes:
            wait = max(wait, self._failed.wait(name, self._clock()))
        if wait and digest not in self._checked:
            return Refused(wait)
        if (task := self._checking.get(digest)) is None:
            if len(self._checking) >= MAX_WAITING:
                raise Busy
            task = asyncio.create_task(self._compare(digest, name, password))
            self._checking[digest] = task
            task.add_done_callback(lambda _: self._checking.pop(digest, None))
        # If a client disconnects, the check goes on for others with the same login.
        identity = await asyncio.shield(task)
        if identity is None:
            self._failed.add(name, self._clock())
            return Refused()
        self._successes[name, network] = None
        shrink(self._successes)
        return identity

    async def _compare(self, digest: bytes, name: str, password: str) -> Identity | None:
        before = self._checked.get(digest)
        changes = self._changes
        account = await asyncio.get_running_loop().run_in_executor(
            self._threads,
            partial(self._right, name, password, before.password_hash if before else None),
        )
        if account is None:
            self._checked.pop(digest, None)
            return None
        identity = Identity(account.username, account.is_admin)
        self._checked[digest] = _Checked(
            identity, account.password_hash, self._clock() + REMEMBERED_SECONDS, changes
        )
        self._checked.move_to_end(digest)
        shrink(self._checked)
        return identity

    def _right(self, name: str, password: str, right_for: str | None) -> Account | None:
        """Returns the account if the password is right, which it is for the hash `right_for`."""
        account = self._find(name)
        if account and account.password_hash == right_for:
            return account
        # Compared in any case, so that the time doesn't tell whether there is such an account.
        usable = account is not None and "$" in account.password_hash
        stored = account.password_hash if account and usable else _nobodys_hash()
        from werkzeug.security import check_password_hash

        return account if check_password_hash(stored, password) and usable else None

    def _digest(self, given: bytes) -> bytes:
        return hmac.digest(self._key, given, "sha256")


def shrink(remembered: OrderedDict[Any, Any]) -> None:
    """Forget the oldest entry if there are too many."""
    if len(remembered) > MAX_REMEMBERED:
        remembered.popitem(last=False)


@cache
def _nobodys_hash() -> str:
    from werkzeug.security import generate_password_hash

    return generate_password_hash(secrets.token_hex())

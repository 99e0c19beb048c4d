"""People's passwords are compared once, and their accounts read again within a minute."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count

import pytest
from tracking_server.accounts.identity import Identity
from tracking_server.accounts.logins import REMEMBERED_SECONDS, Account, Busy, Logins, Refused
from tracking_server.gate.failed_logins import PATIENCE
from werkzeug import security
from werkzeug.security import generate_password_hash

RIGHT, WRONG = b"ada:canary-ada-password", b"ada:wrong"
HOME, ELSEWHERE = "203.0.113.7", "198.51.100.9"


class Table:
    """The table of users, which counts how often it is read and a hash compared."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.accounts = {
            "ada": Account("ada", generate_password_hash("canary-ada-password"), False)
        }
        self.read = self.compared = 0
        self.now = 0.0
        self.logins = Logins(self.find, reserved=["mlflow"], clock=lambda: self.now)
        compare = security.check_password_hash

        def counted(stored: str, password: str) -> bool:
            self.compared += 1
            return compare(stored, password)

        monkeypatch.setattr(security, "check_password_hash", counted)

    def find(self, name: str) -> Account | None:
        self.read += 1
        return self.accounts.get(name)

    def check(self, given: bytes = RIGHT, network: str = HOME, wait: int = 0) -> Identity | Refused:
        if identity := self.logins.remembered(given):
            return identity
        return asyncio.run(self.logins.check(given, network, wait=wait))


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    return Table(monkeypatch)


ADA = Identity("ada", is_admin=False)


def test_a_password_is_compared_once(table: Table) -> None:
    for _ in range(3):
        assert table.check() == ADA
    assert (table.read, table.compared) == (1, 1)
    table.now += REMEMBERED_SECONDS
    assert table.check() == ADA
    assert (table.read, table.compared) == (2, 1)


def test_a_removed_person_is_refused_within_a_minute(table: Table) -> None:
    assert REMEMBERED_SECONDS <= 60
    assert table.check() == ADA
    del table.accounts["ada"]
    assert table.check() == ADA
    table.now += REMEMBERED_SECONDS
    assert table.check() == Refused()


def test_a_removed_person_is_refused_by_every_instance(table: Table) -> None:
    other = Logins(table.find, reserved=["mlflow"], clock=lambda: table.now)
    assert table.check() == asyncio.run(other.check(RIGHT, HOME)) == ADA
    del table.accounts["ada"]
    table.logins.forget()
    assert table.check() == Refused()
    assert other.remembered(RIGHT) == ADA
    table.now += REMEMBERED_SECONDS
    assert other.remembered(RIGHT) is None
    assert asyncio.run(other.check(RIGHT, HOME)) == Refused()


@pytest.mark.parametrize("later", [0.0, REMEMBERED_SECONDS])
def test_a_change_is_seen_at_once_here(table: Table, later: float) -> None:
    assert table.check() == ADA
    table.accounts["ada"] = Account("ada", generate_password_hash("canary-other"), True)
    table.logins.forget()
    table.now += later
    assert table.check() == Refused()
    assert table.check(b"ada:canary-other") == Identity("ada", is_admin=True)


def test_a_change_during_a_check_is_seen_after_it(table: Table) -> None:
    find = table.find

    def changing(name: str) -> Account | None:
        found = find(name)
        table.logins.forget()
        return found

    table.logins._find = changing
    assert table.check() == ADA
    assert table.logins.remembered(RIGHT) is None


@pytest.mark.parametrize(
    "given",
    [b"mlflow:x", b"stranger:x", WRONG, b"ada", b":", b"\xff:x", b"ADA:canary-ada-password"],
)
def test_everything_else_is_refused(table: Table, given: bytes) -> None:
    assert table.check(given) == Refused()


@pytest.mark.parametrize("mark", ["!tracking", ""])
def test_an_account_without_a_hash_has_no_password(table: Table, mark: str) -> None:
    table.accounts["ada"] = Account("ada", mark, True)
    for password in (b"", mark.encode(), b"canary-ada-password"):
        assert table.check(b"ada:" + password) == Refused()
    assert table.compared == 3  # so that the time is the same


def test_guessing_a_password_slows_guessers_and_nobody_else(table: Table) -> None:
    assert table.check() == ADA
    for _ in range(PATIENCE):
        assert table.check(WRONG, ELSEWHERE) == Refused()
    compared = table.compared
    refused = table.check(WRONG, ELSEWHERE)
    assert isinstance(refused, Refused)
    assert 0 < refused.wait <= 60
    assert table.check(b"ada:another", ELSEWHERE) == refused
    assert table.compared == compared
    table.now += REMEMBERED_SECONDS
    for _ in range(PATIENCE):
        table.check(WRONG, ELSEWHERE)
    assert table.check(RIGHT, ELSEWHERE) == ADA  # right before
    assert table.check(b"ada:typo", HOME) == Refused()  # compared, as ada has logged in from there


def test_a_network_that_has_to_wait_is_refused_unless_it_was_right_before(table: Table) -> None:
    assert table.check(wait=9) == Refused(9)
    assert table.check() == ADA
    table.logins.forget()
    assert table.check(wait=9) == ADA


def test_the_same_login_is_compared_once_for_many_requests(table: Table) -> None:
    assert asyncio.run(_together(lambda: table.logins.check(RIGHT, HOME))) == [ADA] * 40
    assert table.compared == 1


def test_few_logins_wait(table: Table) -> None:
    numbers = count()
    with pytest.raises(Busy):
        asyncio.run(_together(lambda: table.logins.check(b"%d:x" % next(numbers), HOME), times=60))


async def _together(
    check: Callable[[], Awaitable[Identity | Refused]], times: int = 40
) -> list[Identity | Refused]:
    return await asyncio.gather(*(check() for _ in range(times)))
